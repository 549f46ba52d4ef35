"""Qwen3-VL (dense): a vision tower with full attention, DeepStack, timestamps as text, and Qwen3 with M-RoPE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from sfllava.models.mrope import Block, grid_positions, pair_times
from sfllava.models.operations import Layers, Shape
from sfllava.models.qwen_vl import QwenFamily, shape_of

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def native_blocks(rate: float, seconds: Tensor, images: int, grid: tuple[int, int]) -> Iterator[Block]:
    """Yield one block with a timestamp for each pair of frames.

    Args:
        rate: Positions per second; not used, since timestamps say the time.
        seconds: (T) Times of the sampled frames.
        images: Number of pairs of frames.
        grid: Number of patches (h, w) of a pair.
    """
    n = grid[0] * grid[1]
    for i, time in enumerate(pair_times(seconds, images).tolist()):
        positions = grid_positions(1, grid, torch.zeros(1))
        yield Block(torch.arange(i * n, (i + 1) * n), positions, max(grid), f"<{time:.1f} seconds>")


def _shape(config: Any, tower: Any, grid: tuple[int, int]) -> Shape:
    width, inner, heads = tower.hidden_size, tower.intermediate_size, tower.num_heads
    # biases: queries, keys, values and output; the two feed-forward matrices; then two norms with biases
    vectors = 4 * width + inner + width + 4 * width
    vision = Layers(tower.depth, width, inner, heads, heads, width // heads, False, vectors)
    sets = 1 + len(tower.deepstack_visual_indexes)
    merged = width * tower.spatial_merge_size**2
    patches = 3 * tower.temporal_patch_size * tower.patch_size**2 * width + width
    # the main merger normalizes patches before merging, the DeepStack mergers after
    norms = 2 * width + 2 * merged * (sets - 1)
    return shape_of(config, vision, grid, sets, patches + tower.num_position_embeddings * width + norms)


FAMILY = QwenFamily(
    Qwen3VLForConditionalGeneration,
    Qwen3VLConfig,
    tuple(f"Qwen/Qwen3-VL-{size}-Instruct" for size in ("2B", "4B", "8B", "32B")),
    _shape,
    _HALF,
    native_blocks,
    prompt_format="qwen3",
    timestamps_in_native=True,
)
