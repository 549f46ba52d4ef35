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
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from sfllava.benchmarks.shapesqa.scenes import CELLS, SIDE
from sfllava.models.family import CLIP_STATISTICS, normalize
from sfllava.models.tiny.card import write_card
from sfllava.models.tiny.data import BOS, CONTENTS, Batch, BatchSpec, make_batch, write_tokenizer
from sfllava.models.tiny.random_checkpoint import rename

FOLDER = Path(__file__).with_name("weights")
_ONE, _FEW, _MANY = BatchSpec((1, 1), 0, 24), BatchSpec((2, 4), 0, 12), BatchSpec((4, 16), 8, 16)
# (steps, the batches that they take in turn) of each stage; the first trains only the tower and the projector
STAGES = ((150, (_ONE,)), (1250, (_ONE,)), (4200, (_ONE, _FEW, _MANY)))
_RATE = 1.2e-3
# the layers of the language model after which the auxiliary losses on the answer and on the options apply
_ANSWER_LAYER, _OPTION_LAYER = 3, 4


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


def patch_loss(visual: Tensor, batch: Batch, head: torch.nn.Module) -> Tensor:
    """Return the loss of `head` at classifying the content and position of each projected patch (B*K cells D)."""
    what, which = head(visual).float().flatten(0, 1).split((len(CONTENTS), CELLS * CELLS), -1)
    contents = torch.from_numpy(batch.patches).flatten()
    # most patches are empty; with full weight they would dominate those that show something
    weight = torch.where(contents > 0, 1.0, 0.1)
    places = torch.arange(CELLS * CELLS).repeat(len(visual))
    losses = F.cross_entropy(what, contents, ignore_index=-1, reduction="none")
    losses = losses + 0.3 * F.cross_entropy(which, places, reduction="none")
    return (weight * losses).sum() / weight.sum()


def render_batch(network: Any, batch: Batch) -> Tensor:
    """Return the projected patches of a batch's stills (B*K cells D)."""
    x = normalize(torch.from_numpy(batch.stills).flatten(0, 1), CLIP_STATISTICS)
    return network.model.multi_modal_projector(network.model.vision_tower(x).last_hidden_state[:, 1:])


def reply_loss(
    network: Any, heads: Any, batch: Batch, visual: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return the language model's loss on a batch, and how many first tokens of replies are right.

    Args:
        network: the model.
        heads: the auxiliary heads, of which `options` is used.
        batch: the batch.
        visual: its projected patches (B*K cells D).
        rng: the source of the random position ids.

    Returns:
        The loss, auxiliary losses included; and (2), the shares that are right among words and among letters.
    """
    b, k = batch.stills.shape[:2]
    visual = visual.unflatten(0, (b, k))
    if batch.kept is not None:
        visual = visual.take_along_dim(torch.from_numpy(batch.kept)[..., None], 2)
    visual = visual.flatten(1, 2)
    language = network.model.language_model
    first = language.embed_tokens(torch.full((b, 1), BOS))
    # a sequence without BOS begins with a patch of another one
    first = torch.where(torch.from_numpy(batch.has_bos)[:, None, None], first, visual[:, -1:].roll(1, 0))
    ids = [torch.from_numpy(slot) for slot in batch.ids]
    embeds = torch.cat([first, visual, *(language.embed_tokens(slot.clamp(min=0)) for slot in ids)], 1)
    n = 1 + visual.shape[1]
    # one visual prefix, many questions: each attends to the prefix and to itself
    owners = torch.cat([torch.full((n,), -1), *(torch.full((slot.shape[1],), q) for q, slot in enumerate(ids))])
    seen = ((owners[None] == -1) | (owners[None] == owners[:, None])).tril()
    output = language(
        inputs_embeds=embeds, attention_mask=torch.zeros(seen.shape).masked_fill(~seen, -1e4)[None, None],
        position_ids=_position_ids(n, ids, rng)[None], use_cache=False, output_hidden_states=True,
    )  # fmt: skip
    replies = torch.cat([torch.zeros(b, n, dtype=torch.bool), *map(torch.from_numpy, batch.replies)], 1)
    targets = torch.cat([torch.zeros(b, n, dtype=torch.long), *ids], 1)[:, 1:][replies[:, 1:]]
    logits = network.lm_head(output.last_hidden_state[:, :-1][replies[:, 1:]]).float()
    # every slot has the same weight, whatever the length of its replies
    slots = owners[1:].expand(b, -1)[replies[:, 1:]]
    weights = torch.ones(len(ids)).div(torch.bincount(slots, minlength=len(ids)))[slots] / len(ids)
    loss = (weights * F.cross_entropy(logits, targets, reduction="none")).sum()
    known = torch.cat([torch.full((b, n), -1), *map(torch.from_numpy, batch.known)], 1)
    early = network.lm_head(language.norm(output.hidden_states[_ANSWER_LAYER][known >= 0])).float()
    right = logits.argmax(-1) == targets
    firsts = (replies[:, 1:] & ~replies[:, :-1])[replies[:, 1:]]
    options = torch.cat([torch.full((b, n), -1), *map(torch.from_numpy, batch.options)], 1)
    chosen = heads["options"](output.hidden_states[_OPTION_LAYER][options >= 0]).float().squeeze(-1)
    loss = loss + 0.5 * F.cross_entropy(early, known[known >= 0])
    loss = loss + 0.5 * F.binary_cross_entropy_with_logits(chosen, options[options >= 0].float())
    return loss, torch.stack([right[firsts & (slots // 4 == part)].float().mean() for part in (0, 1)])


def _position_ids(n: int, ids: list[Tensor], rng: np.random.Generator) -> Tensor:
    """Return the position ids of a prefix of n tokens and of the questions, each of which follows the prefix.

    Most prefixes get random gaps, so that the model accepts longer prompts than those in training.
    """
    places = np.arange(n)
    if rng.random() < 0.7:
        places = np.sort(rng.choice(int(rng.uniform(n, 2 * n + 600)), n, replace=False))
    return torch.cat([torch.from_numpy(places), *(places[-1] + 1 + torch.arange(s.shape[1]) for s in ids)])


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


def _batches(folder: Path, seed: int, steps: int) -> Iterator[tuple[int, Batch]]:
    """Yield every step with its batch; another process prepares the next ones."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        ahead: deque[tuple[int, Future[Batch]]] = deque()
        for step in range(steps):
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


def train(folder: Path, seed: int) -> dict[str, Any]:
    """Train the weights in a folder, and save them there every 200 steps.

    Args:
        folder: from `new_network`.
        seed: the seed of the data and of the auxiliary heads.

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
    width = network.config.text_config.hidden_size
    heads = torch.nn.ModuleDict(
        {"patches": torch.nn.Linear(width, len(CONTENTS) + CELLS * CELLS), "options": torch.nn.Linear(width, 1)}
    )
    parameters = [p for name, p in network.named_parameters() if "post_layernorm" not in name and "newline" not in name]
    parameters += heads.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.98), weight_decay=0.05)
    start, history, recent = time.perf_counter(), [], []
    steps = sum(n for n, _ in STAGES)
    for step, batch in _batches(folder, seed, steps):
        stage = _stage(step)[0]
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps)
        loss, measured = _step_loss(network, heads, batch, stage, np.random.default_rng([seed, 1, step]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(measured)
        if (step + 1) % 50 == 0:
            means = [round(float(value), 3) for value in np.mean(recent, axis=0)]
            history.append((step + 1, round(time.perf_counter() - start), *means))
            print("step {} {} s: loss of patches {}, of replies {}; right: words {}, letters {}".format(*history[-1]))
            recent = []
        if (step + 1) % 200 == 0 or step + 1 == steps:
            tower.encoder.layers.extend(unused)
            save(network, folder)
            tower.encoder.layers = tower.encoder.layers[:-1]
    return {"seconds": round(time.perf_counter() - start), "seed": seed, "history": history}


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


def _rate(step: int, steps: int) -> float:
    """Return the learning rate: warm-up, again when stage 2 starts, then constant, then a cosine decay."""
    since = step - (STAGES[0][0] if step >= STAGES[0][0] else 0)
    late = max(0.0, (step / steps - 0.6) / 0.4)
    return _RATE * min(1, (since + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * late)))


def save(network: Any, folder: Path) -> None:
    """Write model.safetensors, in half precision and with the tensor names of llava-hf's checkpoints."""
    weights = {rename(name, 2): tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(2)
    new_network(options.folder, options.seed)
    record = train(options.folder, options.seed)
    (options.folder / "training.json").write_text(json.dumps(record) + "\n")
    write_card(options.folder, STAGES, (_ANSWER_LAYER, _OPTION_LAYER), _RATE, record)


if __name__ == "__main__":
    main()
