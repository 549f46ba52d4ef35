"""Small random scorers in the layouts of real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from sfllava.sampler.writing import write_video

WORDS = [
    "what",
    "is",
    "it",
    "red",
    "up",
    "on",
    "in",
    "a",
    "b",
    "c",
    "the",
    "color",
    "of",
    "shape",
    "moves",
    "first",
    "last",
]


def write_scorer(
    folder: Path,
    kind: str = "clip",
    *,
    seed: int = 0,
    size: int = 32,
    words: Sequence[str] = WORDS,
    **vision_fields: Any,
) -> Path:
    """Write a scorer that tells frames and texts apart, and return its folder."""
    folder.mkdir(parents=True)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "<start>", "<end>", *words])}
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": len(vocabulary), "max_position_embeddings": 16, "projection_dim": 24, "projection_size": 24,
        "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 24 if kind == "siglip" else 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": size, "patch_size": 8, "projection_dim": 24,
        **vision_fields,
    }  # fmt: skip
    torch.manual_seed(seed)
    made = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}[kind]
    config = made[0](text_config=text, vision_config=vision, projection_dim=24)
    network = made[1](config)
    weights = {
        name: (torch.randn_like(value) * 0.4 if value.ndim > 1 else value).contiguous()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def write_colours(folder: Path, names: str = "ab", seconds: int = 24) -> Path:
    """Write videos at 4 frames per second, whose seconds have a colour each, and return their folder."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        colours = np.random.default_rng(seed).integers(0, 256, (seconds, 1, 1, 3), np.uint8)
        frames = np.broadcast_to(colours, (seconds, 48, 64, 3)).repeat(4, 0)
        write_video(folder / f"{name}.mp4", frames, fps=4)
    return folder
