"""Qwen2.5-VL: a vision tower with window attention, 2x2 patch merging, and Qwen2.5 with M-RoPE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from sfllava.models.family import Configuration, LoadOptions
from sfllava.models.mrope import Block, grid_positions
from sfllava.models.operations import Layers, Shape
from sfllava.models.qwen_vl import QwenEncoder, configure, shape_of
from sfllava.models.tokenizer import Tokenizer

_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def native_blocks(rate: float, seconds: Tensor, images: int, grid: tuple[int, int]) -> Iterator[Block]:
    """Yield the only block of `native`: the tokens of all pairs of frames.

    As in transformers, the text after the block starts at the larger side of the grid. Its positions may therefore be
    smaller than those of the last frames.

    Args:
        rate: Positions per second.
        seconds: (T) Times of the sampled frames.
        images: Number of pairs of frames.
        grid: Number of patches (h, w) of a pair.
    """
    # as in transformers: the same interval between all pairs of the video
    spacing = float(seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1) * -(-len(seconds) // images)
    times = torch.arange(images) * (rate * spacing)
    yield Block(torch.arange(images * grid[0] * grid[1]), grid_positions(images, grid, times), max(grid))


def _shape(config: Any, tower: Any, grid: tuple[int, int]) -> Shape:
    width, inner, heads = tower.hidden_size, tower.intermediate_size, tower.num_heads
    # biases: queries, keys, values and output; the three feed-forward matrices; then two norms without biases
    vectors = 4 * width + 2 * inner + width + 2 * width
    vision = Layers(tower.depth, width, inner, heads, heads, width // heads, True, vectors)
    rest = 3 * tower.temporal_patch_size * tower.patch_size**2 * width + width  # patch embedding, and the merger's norm
    return shape_of(
        config, vision, grid, 1, rest,
        window=(tower.window_size // tower.patch_size) ** 2, full_layers=len(tower.fullatt_block_indexes),
    )  # fmt: skip


class Qwen25Family:
    """What is specific to Qwen2.5-VL checkpoints; see `Family`."""

    network: Any = Qwen2_5_VLForConditionalGeneration
    unused_tensors: tuple[str, ...] = ()
    checkpoints = tuple(f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B", "72B"))

    def configure(self, config: dict[str, Any], folder: Path, options: LoadOptions) -> Configuration:
        """Check a config; `rope_factor` is ignored."""
        return configure(Qwen2_5_VLConfig, config, folder, options, _shape, _CLIP, False)

    def prompt_family(self, config: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
        """Return the name of the prompt templates."""
        return "qwen"

    def encoder(self, network: Any, configuration: Configuration, tokenizer: Tokenizer) -> QwenEncoder:
        """Return the vision encoder, with the positions per second that the checkpoint was trained with."""
        rate = configuration.config.vision_config.tokens_per_second
        rule = lambda seconds, images, grid: native_blocks(rate, seconds, images, grid)  # noqa: E731
        return QwenEncoder(network, configuration, tokenizer, rate, rule)

    def unused_ids(self, config: Any) -> list[int]:
        """Return the token ids of the image and video placeholders and of the delimiters around them."""
        return [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]


FAMILY = Qwen25Family()
