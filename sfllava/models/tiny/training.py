"""Train the tiny model from scratch: `python -m sfllava.models.tiny.training`.

It sees 1 to 16 stills of a scene at a time, and questions about them. It never sees pooled tokens, or a Slow or Fast
pathway.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from sfllava.benchmarks.shapesqa.scenes import CELLS, SIDE
from sfllava.models.tiny.card import write_card
from sfllava.models.tiny.data import Batch, BatchSpec, make_batch, write_tokenizer
from sfllava.models.tiny.losses import ANSWER_LAYER, OPTION_LAYER, patch_loss, render_batch, reply_loss
from sfllava.models.tiny.random_checkpoint import rename
from sfllava.models.tiny.stills import CONTENTS

FOLDER = Path(__file__).with_name("weights")
_ONE, _FEW, _MANY = BatchSpec((1, 1), 0, 24), BatchSpec((2, 4), 0, 12), BatchSpec((4, 16), 8, 16)
_SIGN, _SIGNS = BatchSpec((1, 1), 0, 24, True), BatchSpec((2, 6), 0, 8, True)
# (steps, the batches that they take in turn) of each stage; the first trains only the tower and the projector
STAGES = (
    (150, (_ONE,)),
    (1250, (_ONE,)),
    (4200, (_ONE, _FEW, _MANY)),
    (1500, (_SIGN, _FEW, _SIGNS, _MANY, _SIGNS, _ONE)),
)
# the last stage starts anew from the stored weights, with new auxiliary heads and a smaller rate
_FIRST = sum(steps for steps, _ in STAGES[:-1])
_RATE, _LATE_RATE = 1.2e-3, 5e-4


def config_dict(vocabulary: int) -> dict[str, Any]:
    """Return the config in the layout of transformers; as in the 7B, the tower's last layer is unused."""
    return {
        "model_type": "llava_next",
        "architectures": ["LlavaNextForConditionalGeneration"],
        "sfllava_family": "tiny",
        "text_config": {
            "model_type": "llama",
            "vocab_size": vocabulary,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-5,
            "initializer_range": 0.08,  # about 1 / sqrt(width); the usual 0.02 suits wide models and trains slowly here
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": 14,
            "projection_dim": 32,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "image_token_index": vocabulary,
        "tie_word_embeddings": False,
        "dtype": "float16",
    }


def _stage(step: int) -> tuple[int, BatchSpec]:
    """Return the stage of a step, and its batch."""
    for stage, (steps, specs) in enumerate(STAGES):
        if step < steps:
            return stage, specs[step % len(specs)]
        step -= steps
    raise ValueError(step)


def _prepare(folder: Path, seed: int, step: int) -> Batch:
    return make_batch(np.random.default_rng([seed, 0, step]), _tokenizer(folder), _stage(step)[1])


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _batches(folder: Path, seed: int, steps: range) -> Iterator[tuple[int, Batch]]:
    """Yield every step with its batch; another process prepares the next ones."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        ahead: deque[tuple[int, Future[Batch]]] = deque()
        for step in steps:
            ahead.append((step, pool.submit(_prepare, folder, seed, step)))
            if len(ahead) > 4:
                yield ahead[0][0], ahead.popleft()[1].result()
        yield from ((step, batch.result()) for step, batch in ahead)


def new_network(folder: Path, seed: int) -> None:
    """Write the tokenizer, the config and random weights into a folder."""
    torch.manual_seed(seed)
    config = config_dict(write_tokenizer(folder).get_vocab_size())
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    network: Any = LlavaNextForConditionalGeneration(LlavaNextConfig.from_dict(config))
    # on the scale of the patch embeddings: from 0.02 it takes hundreds of steps until patches encode their position
    torch.nn.init.normal_(network.model.vision_tower.embeddings.position_embedding.weight, std=0.5)
    save(network, folder)


def train(folder: Path, seed: int, late: bool) -> dict[str, Any]:
    """Train the weights in a folder, and save them there every 200 steps.

    Args:
        folder: from `new_network`, or with weights of the stages before the last.
        seed: the seed of the data and of the auxiliary heads.
        late: whether to run the last stage, and not all the others.

    Returns:
        seconds, seed, and history: (step, seconds, patch loss, reply loss, words right, letters right) per 50 steps.
    """
    torch.manual_seed(seed)
    network: Any = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    # on a CPU, the backward pass of torch's fused attention is several times slower than plain matrix products
    network.set_attn_implementation("eager")
    tower = network.model.vision_tower
    unused = tower.encoder.layers[-1:]
    tower.encoder.layers = tower.encoder.layers[:-1]
    heads = _new_heads(network.config.text_config.hidden_size)
    own = [p for name, p in network.named_parameters() if "post_layernorm" not in name and "newline" not in name]
    groups = [{"params": own, "rate": _LATE_RATE if late else _RATE}, {"params": [*heads.parameters()], "rate": _RATE}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98), weight_decay=0.05)
    start, history, recent = time.perf_counter(), [], []
    steps = range(_FIRST, _FIRST + STAGES[-1][0]) if late else range(_FIRST)
    for step, batch in _batches(folder, seed, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * (_late_part if late else _part)(step)
        loss, measured = _step_loss(network, heads, batch, _stage(step)[0], np.random.default_rng([seed, 1, step]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(measured)
        if (step + 1) % 50 == 0:
            means = [round(float(value), 3) for value in np.mean(recent, axis=0)]
            history.append((step + 1, round(time.perf_counter() - start), *means))
            print("step {} {} s: loss of patches {}, of replies {}; right: words {}, letters {}".format(*history[-1]))
            recent = []
        if (step + 1) % 200 == 0 or step + 1 == steps.stop:
            tower.encoder.layers.extend(unused)
            save(network, folder)
            tower.encoder.layers = tower.encoder.layers[:-1]
    return {"seconds": round(time.perf_counter() - start), "seed": seed, "history": history}


def _new_heads(width: int) -> torch.nn.ModuleDict:
    """Return new auxiliary heads, on the content and position of patches, and on options."""
    return torch.nn.ModuleDict(
        {"patches": torch.nn.Linear(width, len(CONTENTS) + CELLS * CELLS), "options": torch.nn.Linear(width, 1)}
    )


def _step_loss(
    network: Any, heads: Any, batch: Batch, stage: int, rng: np.random.Generator
) -> tuple[Tensor, tuple[float, ...]]:
    """Return the loss of a step, and its patch loss, reply loss, share of words right and share of letters right."""
    with torch.autocast("cpu", torch.bfloat16):
        # with few patches of many stills, only the language model trains
        with torch.set_grad_enabled(batch.kept is None):
            visual = render_batch(network, batch)
            patches = patch_loss(visual, batch, heads["patches"])
        if not stage:
            return patches, (patches.item(), 0.0, 0.0, 0.0)
        replies, right = reply_loss(network, heads, batch, visual, rng)
        return replies + 0.1 * patches, (patches.item(), replies.item(), *right.tolist())


def _part(step: int) -> float:
    """Return the part of the highest rate: warm-up, again when stage 2 starts, constant, then a cosine decay."""
    since = step - (STAGES[0][0] if step >= STAGES[0][0] else 0)
    late = max(0.0, (step / _FIRST - 0.6) / 0.4)
    return min(1, (since + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * late)))


def _late_part(step: int) -> float:
    """Return the part of the highest rate in the last stage: warm-up, constant, then a cosine decay."""
    since, late = step - _FIRST, max(0.0, ((step - _FIRST) / STAGES[-1][0] - 0.3) / 0.7)
    return min(1, (since + 1) / 60) * (0.01 + 0.495 * (1 + math.cos(math.pi * late)))


def save(network: Any, folder: Path) -> None:
    """Write model.safetensors, in half precision and with the tensor names of llava-hf's checkpoints."""
    weights = {rename(name, 2): tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--continue", action="store_true", dest="late", help="only the last stage, on what is stored")
    options = parser.parse_args()
    torch.set_num_threads(2)
    record_path = options.folder / "training.json"
    if options.late:
        record = json.loads(record_path.read_text())
        if "last_stage" in record:
            parser.error(f"{options.folder}: the last stage has already run on these weights")
    else:
        new_network(options.folder, options.seed)
        record = train(options.folder, options.seed, late=False)
        record_path.write_text(json.dumps(record) + "\n")
    record["last_stage"] = train(options.folder, options.seed, late=True)
    record_path.write_text(json.dumps(record) + "\n")
    write_card(options.folder, STAGES, (ANSWER_LAYER, OPTION_LAYER), (_RATE, _LATE_RATE), record)


if __name__ == "__main__":
    main()
