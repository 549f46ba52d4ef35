"""Qwen2.5-VL: a vision tower with window attention, 2x2 patch merging, and Qwen2.5 with M-RoPE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from sfllava.models.family import CLIP_STATISTICS
from sfllava.models.mrope import Block, grid_positions
from sfllava.models.operations import Layers, Shape
from sfllava.models.qwen_vl import QwenFamily, shape_of


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


FAMILY = QwenFamily(
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLConfig,
    tuple(f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B", "72B")),
    _shape,
    CLIP_STATISTICS,
    native_blocks,
    prompt_format="qwen",
    timestamps_in_native=False,
)
