"""Qwen3-VL (dense): a vision tower with full attention, DeepStack, timestamps as text, and Qwen3 with M-RoPE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from sfllava.models.family import Configuration, LoadOptions
from sfllava.models.mrope import Block, grid_positions, pair_times
from sfllava.models.operations import Layers, Shape
from sfllava.models.prompt_formats import chat_template
from sfllava.models.qwen_vl import QwenEncoder, configure, shape_of
from sfllava.models.tokenizer import Tokenizer

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Positions per second without timestamps, if the config has no tokens_per_second: as in the Qwen2.5-VL checkpoints
_RATE = 2.0


def native_blocks(seconds: Tensor, images: int, grid: tuple[int, int]) -> Iterator[Block]:
    """Yield one block with a timestamp for each pair of frames.

    Args:
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


class Qwen3Family:
    """What is specific to Qwen3-VL checkpoints; see `Family`."""

    network: Any = Qwen3VLForConditionalGeneration
    unused_tensors: tuple[str, ...] = ()
    checkpoints = tuple(f"Qwen/Qwen3-VL-{size}-Instruct" for size in ("2B", "4B", "8B", "32B"))

    def configure(self, config: dict[str, Any], folder: Path, options: LoadOptions) -> Configuration:
        """Check a config; `rope_factor` is ignored."""
        return configure(Qwen3VLConfig, config, folder, options, _shape, _HALF, True)

    def prompt_family(self, config: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
        """Return the name of the prompt templates; None for a Thinking checkpoint, whose prompts end in <think>."""
        return None if "assistant\\n<think>" in chat_template(folder) else "qwen3"

    def encoder(self, network: Any, configuration: Configuration, tokenizer: Tokenizer) -> QwenEncoder:
        """Return the vision encoder."""
        rate = getattr(configuration.config.vision_config, "tokens_per_second", _RATE)
        return QwenEncoder(network, configuration, tokenizer, rate, native_blocks)

    def unused_ids(self, config: Any) -> list[int]:
        """Return the token ids of the image and video placeholders and of the delimiters around them."""
        return [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]


FAMILY = Qwen3Family()
