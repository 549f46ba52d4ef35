"""Train the small scorer in the package, a CLIP: `python -m sfllava.models.tiny.scorer_training`.

It compares stills with questions: the cosine of their features is high where the still shows what the question names.
It never sees a video file, nor an answer.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from sfllava.benchmarks.shapesqa.scenes import COLOURS, DIGITS, MARKS, PLACES, SIDE
from sfllava.models.family import CLIP_STATISTICS, normalize
from sfllava.models.placement import TINY
from sfllava.models.tiny import SCORER
from sfllava.models.tiny.card import write_scorer_card
from sfllava.models.tiny.data import wordings
from sfllava.models.tiny.stills import CONTENTS, make_stills

STEPS, RATE = 1200, 1e-3
STILLS = (5, 3)  # sequences per step: with coloured signs, and of scenes with flashes
WIDTH, FEATURES, LONGEST = 128, 64, 64
_START, _END = "<|startoftext|>", "<|endoftext|>"
# what a question names: the beginnings of the contents that show it, the questions, and their possible answers
_NAMED: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    *((f"sign {c} ", (f"Which digit is on the {c} sign?",), DIGITS) for c in COLOURS),
    *((f"sign {c} ", (f"Where is the {c} sign?",), PLACES) for c in COLOURS),
    *((f"{mark} ", (f"What colour is the small {mark}?",), tuple(COLOURS)) for mark in MARKS),
    *((f"{mark} ", (f"Where is the small {mark}?",), PLACES) for mark in MARKS),
    ("sign ", ("Which digit is on the sign?",), DIGITS),
    ("sign ", ("Where is the sign?",), PLACES),
    ("flash ", ("Which colour flashed?", "Which colour flashed first?", "Which colour flashed last?"), tuple(COLOURS)),
    ("flash ", ("How many colours flashed?",), ("one", "two", "three", "four")),
)


def config_dict(words: int) -> dict[str, Any]:
    """Return the config in the layout of transformers. The vision tower has the size of the tiny model's."""
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": 4,
        "hidden_act": "quick_gelu",
    }
    start, end = words - 2, words - 1
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": FEATURES,
        "text_config": {
            **shared,
            "model_type": "clip_text_model",
            "num_hidden_layers": 2,
            "vocab_size": words,
            "max_position_embeddings": LONGEST,
            "projection_dim": FEATURES,
            # features are those of the end token, which has the highest id as in CLIP
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        "vision_config": {
            **shared,
            "model_type": "clip_vision_model",
            "num_hidden_layers": 3,
            "image_size": SIDE,
            "patch_size": 14,
            "projection_dim": FEATURES,
        },
        "dtype": "float16",
    }


def write_tokenizer(folder: Path, source: Path) -> int:
    """Write the tokenizer of the tiny model with CLIP's start and end tokens; return its number of words."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_special_tokens([_START, _END])
    ids = [(token, tokenizer.token_to_id(token)) for token in (_START, _END)]
    tokenizer.post_processor = TemplateProcessing(single=f"{_START} $A {_END}", special_tokens=ids)
    tokenizer.save(str(folder / "tokenizer.json"))
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _START,
        "eos_token": _END,
        "pad_token": _END,
        "unk_token": "<unk>",
        "model_max_length": LONGEST,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=1) + "\n")
    return tokenizer.get_vocab_size()


def new_network(folder: Path, source: Path) -> CLIPModel:
    """Write tokenizer, config and preprocessor into a folder; return a network with the tiny model's vision tower."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_dict(write_tokenizer(folder, source))
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    mean, std = CLIP_STATISTICS
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    statistics = {"image_mean": list(mean), "image_std": list(std), "image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics | sizes, indent=1) + "\n")
    network = CLIPModel(CLIPConfig.from_dict(config)).float()
    for module in network.text_model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):  # the default suits wide models
            torch.nn.init.normal_(module.weight, std=0.08)
    prefix = "vision_tower.vision_model."
    stored = load_file(source / "model.safetensors")
    tower = {name.removeprefix(prefix): w.float() for name, w in stored.items() if name.startswith(prefix)}
    problems = network.vision_model.load_state_dict(tower, strict=False)
    if problems.unexpected_keys or problems.missing_keys:
        raise ValueError(f"{source}: its vision tower has other tensors: {problems}")
    return network


def pick_texts(rng: np.random.Generator) -> list[str]:
    """Return one text for each entry of _NAMED: a question in one of its wordings, in 3 of 10 cases with options."""
    texts = []
    for _, questions, answers in _NAMED:
        text = str(rng.choice(wordings(str(rng.choice(questions)))))
        if rng.random() < 0.3:
            text = " ".join([text, *map(str, rng.permutation(answers)[:4])])
        texts.append(text)
    return texts


def shown(patches: np.ndarray) -> np.ndarray:
    """Return whether each still shows what each entry of _NAMED names.

    Args:
        patches: (N cells), as `Batch.patches`.

    Returns:
        (N entries) bool.
    """
    plain = {f"sign {digit}" for digit in DIGITS}
    columns = []
    for start, _, _ in _NAMED:
        names = [name for name in CONTENTS if (name in plain if start == "sign " else name.startswith(start))]
        columns.append(np.isin(patches, [CONTENTS.index(name) for name in names]).any(-1))
    return np.stack(columns, -1)


def train(folder: Path, source: Path, seed: int) -> dict[str, Any]:
    """Train a scorer from the vision tower of the tiny model, and save it in a folder.

    Args:
        folder: where to write it.
        source: the folder of the tiny model.
        seed: the seed of the data and of the new weights.

    Returns:
        seconds, seed, steps, stills, and history: (step, seconds, loss, share of pairs right) per 100 steps.
    """
    torch.manual_seed(seed)
    network = new_network(folder, source)
    network.set_attn_implementation("eager")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    bias = torch.nn.Parameter(torch.tensor(-4.0))
    network.logit_scale.data.fill_(2.3)
    parameters = [*network.parameters(), bias]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    start, history, recent, stills = time.perf_counter(), [], [], 0
    for step in range(STEPS):
        rng = np.random.default_rng([seed, 2, step])
        pixels, patches = _batch(rng)
        stills += len(pixels)
        ids = tokenizer(pick_texts(rng), padding=True, return_tensors="pt")
        loss, right = _loss(network, bias, pixels, ids, torch.from_numpy(shown(patches)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        recent.append((loss.item(), right))
        if (step + 1) % 100 == 0:
            means = [round(float(value), 4) for value in np.mean(recent, axis=0)]
            history.append((step + 1, round(time.perf_counter() - start), *means))
            print("step {} {} s: loss {}, pairs right {}".format(*history[-1]), flush=True)
            recent = []
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    seconds = round(time.perf_counter() - start)
    return {"seconds": seconds, "seed": seed, "steps": STEPS, "stills": stills, "history": history}


def _batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return stills (N H W 3) and the contents of their patches (N cells)."""
    parts = [make_stills(rng, 4, signs=kind == 0)[:2] for kind, n in enumerate(STILLS) for _ in range(n)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _loss(network: Any, bias: Tensor, pixels: np.ndarray, ids: Any, wanted: Tensor) -> tuple[Tensor, float]:
    """Return the loss of stills (N) and texts (M) of which `wanted` (N M) belong together, and the share right."""
    with torch.autocast("cpu", torch.bfloat16):
        images = network.visual_projection(
            network.vision_model(normalize(torch.from_numpy(pixels), CLIP_STATISTICS)).pooler_output
        ).float()
        texts = network.text_projection(network.text_model(**ids).pooler_output).float()
    cosines = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    logits = network.logit_scale.exp() * cosines
    each = F.binary_cross_entropy_with_logits(logits + bias, wanted.float(), pos_weight=torch.tensor(3.0))
    # for each text, a softmax over the stills: all that show it against all of them
    some = wanted.any(0)
    among = (logits.logsumexp(0) - logits.masked_fill(~wanted, -torch.inf).logsumexp(0))[some].mean()
    # norms near 8, since a rule may compare dot products
    norms = sum((f.norm(dim=-1) / FEATURES**0.5 - 1).square().mean() for f in (images, texts))
    right = ((logits + bias > 0) == wanted).float().mean().item()
    return each + 0.3 * among + 0.1 * norms, right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=SCORER)
    parser.add_argument("--source", type=Path, default=TINY)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(2)
    record = train(options.folder, options.source, options.seed)
    (options.folder / "training.json").write_text(json.dumps(record) + "\n")
    write_scorer_card(options.folder, record)


if __name__ == "__main__":
    main()
