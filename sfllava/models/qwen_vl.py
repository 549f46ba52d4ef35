"""What Qwen2.5-VL and Qwen3-VL share: merged patches, positions in time, height and width, and text between frames.

Each frame is encoded as a still image: it is repeated to fill a temporal patch, so that one frame gives one grid of
patches and can be encoded, cached and pooled on its own. `native` encodes pairs of consecutive frames instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import makes_images
from sfllava.aggregators.native import NativeEncoding
from sfllava.aggregators.sources import token_sources
from sfllava.aggregators.tower import PatchGrid
from sfllava.models.checkpoint import CheckpointError, check_sizes
from sfllava.models.family import (
    Configuration,
    LoadOptions,
    VideoText,
    from_dict,
    normalize,
    read_preprocessor,
    read_statistics,
)
from sfllava.models.mrope import Block, frame_blocks, frame_times, locate_tokens
from sfllava.models.operations import Layers, Shape
from sfllava.models.prompt_formats import chat_template
from sfllava.models.text_layers import embedding_parameters, text_layers
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.visual_tokens import VisualTokens, aggregate
from sfllava.types import SfllavaError

# Patches along each side of a frame in the tower, for frames of 336 or 384 pixels; merged 2x2, they give a 12x12 grid
_SIDE = 24
# Token ids of "<9999.9 seconds>", digit by digit
_TIMESTAMP = 12


class QwenEncoder:
    """The vision tower of a network and its patch merger.

    Args:
        network: The loaded transformers model.
        configuration: Its checked config.
        tokenizer: Tokenizes the timestamps.
        rate: Positions per second.
        native_blocks: (seconds, images, grid) -> the blocks of `native`.
    """

    def __init__(
        self, network: Any, configuration: Configuration, tokenizer: Tokenizer, rate: float, native_blocks: Any
    ) -> None:
        self._tower, self._embed = network.model.visual, network.model.language_model.embed_tokens
        self._configuration, self._tokenizer, self._dtype = configuration, tokenizer, network.dtype
        self._rate, self._native_blocks = rate, native_blocks
        self._width = configuration.shape.language.width
        config = configuration.config
        self._start, self._end = config.vision_start_token_id, config.vision_end_token_id

    @property
    def device(self) -> torch.device:
        """The device that takes the frames."""
        return self._tower.device

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (T H W 3), already resized, as (T h w D), or (T h w (1+S)*D) with S DeepStack sets."""
        repeats = self._configuration.shape.temporal_patch
        return self._encode(self._normalize(frames)[:, None].expand(-1, repeats, -1, -1, -1))

    def encode_native(self, frames: Tensor) -> Tensor:
        """Encode consecutive frames (T H W 3) together as temporal patches; repeat the last frame to fill its patch."""
        size = self._configuration.shape.temporal_patch
        missing = -len(frames) % size
        pixels = self._normalize(torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)]))
        return self._encode(pixels.unflatten(0, (-1, size)))

    def _normalize(self, frames: Tensor) -> Tensor:
        return normalize(frames, self._configuration.statistics).to(self._dtype)

    def _encode(self, pixels: Tensor) -> Tensor:
        """(T P 3 H W) -> (T h w D), for T images of P frames each."""
        shape = self._configuration.shape
        rows, columns = shape.tower
        merge = rows // shape.grid[0]
        # the tower takes patches grouped by merge window; within a patch the order is channel, frame, row, column
        parts = pixels.unflatten(-1, (columns // merge, merge, shape.patch))
        parts = parts.unflatten(-4, (rows // merge, merge, shape.patch))
        patches = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).flatten(5).flatten(0, 4)
        sizes = torch.tensor([[1, rows, columns]], device=pixels.device).expand(len(pixels), -1)
        out = self._tower(patches, grid_thw=sizes)
        sets = [out.pooler_output, *(getattr(out, "deepstack_features", None) or ())]
        return torch.cat(sets, dim=-1).unflatten(0, (len(pixels), *shape.grid))

    def with_outputs(self, frames: Tensor, needs: tuple[str, ...]) -> PatchGrid:
        """Raise: the patches are merged after the tower, so that no attention or key belongs to one of them."""
        raise SfllavaError("Qwen's vision tower gives no attention or keys of merged patches")

    def visual_tokens(self, aggregator: Any, grid: Tensor, seconds: np.ndarray | None) -> VisualTokens:
        """Aggregate a grid, and put its tokens and the text around them in order; see `VisionEncoder`."""
        if grid.shape[-1] % self._width:
            raise SfllavaError(f"needed a grid from this model's encode, got {grid.shape[-1]} channels")
        embeddings, deepstack = aggregate(aggregator, grid, self._width)
        if not len(embeddings):
            return VisualTokens(embeddings)
        blocks = self._blocks(aggregator, grid[..., : self._width], seconds, len(embeddings))
        return self._interleave(embeddings, deepstack, list(blocks))

    def _blocks(self, aggregator: Any, grid: Tensor, seconds: np.ndarray | None, count: int) -> Iterator[Block]:
        options = self._configuration.options
        per_image = getattr(aggregator, "frames_per_image", 1)
        times = frame_times(seconds, len(grid) * per_image)
        if not (len(grid) - 1) * per_image < len(times) <= len(grid) * per_image and not makes_images(aggregator):
            raise SfllavaError(f"needed the times of {len(grid)} frames, got {len(times)}")
        if isinstance(aggregator, NativeEncoding):
            return self._native_blocks(times, len(grid), self._configuration.shape.grid)
        if options.positions == "consecutive" and not options.timestamps:
            return iter([Block(torch.arange(count), None, count)])
        located = locate_tokens(token_sources(aggregator, grid, len(times)), times, self._rate)
        if not options.timestamps:
            return iter([Block(torch.arange(count), located.positions, int(located.positions.max()) + 1)])
        return frame_blocks(located, options.positions)

    def _interleave(self, embeddings: Tensor, deepstack: Tensor | None, blocks: Sequence[Block]) -> VisualTokens:
        """Put the blocks of visual tokens and the text around them in order."""
        rows: list[Tensor] = []  # indices into `embeddings` followed by all text
        ids: list[int] = []
        positions, start = [], 0

        def add_text(text: Sequence[int]) -> None:
            nonlocal start
            rows.append(len(embeddings) + len(ids) + torch.arange(len(text)))
            positions.append((start + torch.arange(len(text)))[:, None].expand(-1, 3))
            ids.extend(text)
            start += len(text)

        for block in blocks:
            add_text([*(self._tokenizer.encode(block.text) if block.text else []), self._start])
            n = len(block.tokens)
            inside = torch.arange(n)[:, None].expand(-1, 3) if block.positions is None else block.positions
            rows.append(block.tokens)
            positions.append(start + inside)
            start += block.end
            add_text([self._end])
        order = torch.cat(rows).to(embeddings.device)
        text = self._embed(torch.tensor(ids, device=self._embed.weight.device)).to(embeddings.device, embeddings.dtype)
        zeros = None if deepstack is None else deepstack.new_zeros(len(ids), *deepstack.shape[1:])
        return VisualTokens(
            torch.cat([embeddings, text])[order],
            order < len(embeddings),
            torch.cat(positions).to(embeddings.device),
            start,
            None if deepstack is None else torch.cat([deepstack, zeros])[order],  # type: ignore[list-item]
        )


def configure(
    config_class: Any,
    config: dict[str, Any],
    folder: Path,
    options: LoadOptions,
    shape: Any,
    statistics: Any,
    timestamps_in_native: bool,
) -> Configuration:
    """Check the config of a Qwen2.5-VL or Qwen3-VL checkpoint.

    Args:
        config_class: The transformers class of the config.
        config: The JSON of the config.
        folder: The checkpoint folder.
        options: How to use the checkpoint.
        shape: (config, its vision_config, grid) -> `Shape`.
        statistics: Mean and standard deviation of RGB in 0..1, for a checkpoint without a preprocessor.
        timestamps_in_native: Whether `native` has timestamps.

    Raises:
        CheckpointError: The config cannot be used.
    """
    where = folder / "config.json"
    check_sizes(config, str(where))  # the hub's Qwen2.5-VL has the fields of the language model here
    for part in ("text_config", "vision_config"):
        if isinstance(given := config.get(part), dict):
            check_sizes(given, f"{where}: {part}")
    parsed: Any = from_dict(config_class, config, folder)
    tower, text = parsed.vision_config, parsed.get_text_config()
    # transformers ties the embeddings by the field at the top
    parsed.tie_word_embeddings = parsed.tie_word_embeddings or getattr(text, "tie_word_embeddings", False)
    if tower.out_hidden_size != text.hidden_size:
        raise CheckpointError(
            f"{where}: the tower's out_hidden_size {tower.out_hidden_size} is not the language model's hidden_size "
            f"{text.hidden_size}"
        )
    preprocessor = read_preprocessor(folder)
    _check_patches(preprocessor, tower, folder)
    if _SIDE % tower.spatial_merge_size:
        raise CheckpointError(f"{where}: spatial_merge_size must divide {_SIDE}, got {tower.spatial_merge_size}")
    side = _SIDE // tower.spatial_merge_size
    native = NativeEncoding((side, side), tower.temporal_patch_size)
    positions = text.max_position_embeddings
    return Configuration(
        parsed, shape(parsed, tower, (side, side)), positions, _SIDE * tower.patch_size, native, positions,
        read_statistics(preprocessor, folder, statistics), options,
        VideoText(2, _TIMESTAMP, timestamps_in_native, options.timestamps),
    )  # fmt: skip


def _check_patches(preprocessor: dict[str, Any], tower: Any, folder: Path) -> None:
    """Check that the preprocessor cuts the patches that the tower takes."""
    for name in ("patch_size", "merge_size", "temporal_patch_size"):
        wanted = getattr(tower, "spatial_merge_size" if name == "merge_size" else name)
        if preprocessor.get(name, wanted) != wanted:
            raise CheckpointError(
                f"{folder}: the preprocessor has {name} {preprocessor[name]}, but the vision tower has {wanted}; are "
                "these files from two checkpoints?"
            )


def shape_of(config: Any, vision: Layers, grid: tuple[int, int], sets: int, rest: int, **more: Any) -> Shape:
    """Return the sizes of a model.

    Args:
        config: The checked config.
        vision: The layers of the vision tower.
        grid: Number of merged patches (h, w) of a frame.
        sets: Number of feature sets of the tower; each has its own merger.
        rest: Number of parameters of the tower outside its layers and the matrices of its mergers.
        **more: Further fields of `Shape`.
    """
    tower = config.vision_config
    merged = tower.hidden_size * tower.spatial_merge_size**2
    matrices = ((merged, merged), (merged, tower.out_hidden_size)) * sets
    rest += embedding_parameters(config) + sum(inputs * outputs + outputs for inputs, outputs in matrices)
    return Shape(
        text_layers(config.get_text_config()), vision, config.get_text_config().vocab_size, grid, tower.patch_size,
        tower=(_SIDE, _SIDE), cls_tokens=0, temporal_patch=tower.temporal_patch_size, projector=matrices, rest=rest,
        **more,
    )  # fmt: skip


@dataclass(frozen=True)
class QwenFamily:
    """Qwen2.5-VL or Qwen3-VL; see `Family`.

    Attributes:
        network: The transformers class of the model.
        config_class: The transformers class of the config.
        checkpoints: Names of published checkpoints on the hub.
        shape: (config, its vision_config, grid) -> `Shape`.
        statistics: Mean and standard deviation of RGB in 0..1, for a checkpoint without a preprocessor.
        native_blocks: (positions per second, seconds, images, grid) -> the blocks of `native`.
        prompt_format: Name of the prompt templates.
        timestamps_in_native: Whether `native` has timestamps.
        rate: Positions per second, if the config has no tokens_per_second.
        unused_tensors: Suffixes of the names of tensors that a checkpoint may lack.
    """

    network: Any
    config_class: Any
    checkpoints: tuple[str, ...]
    shape: Callable[[Any, Any, tuple[int, int]], Shape]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    native_blocks: Callable[[float, Tensor, int, tuple[int, int]], Iterator[Block]]
    prompt_format: str
    timestamps_in_native: bool
    rate: float = 2.0
    unused_tensors: tuple[str, ...] = ()

    def configure(self, config: dict[str, Any], folder: Path, options: LoadOptions) -> Configuration:
        """Check a config; `rope_factor` is ignored."""
        more = (options, self.shape, self.statistics, self.timestamps_in_native)
        return configure(self.config_class, config, folder, *more)

    def prompt_family(self, config: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
        """Return the name of the prompt templates; None for a Thinking checkpoint, whose prompts end in <think>."""
        return None if "assistant\\n<think>" in chat_template(folder) else self.prompt_format

    def encoder(self, network: Any, configuration: Configuration, tokenizer: Tokenizer) -> QwenEncoder:
        """Return the vision encoder, with the positions per second that the checkpoint was trained with."""
        rate = getattr(configuration.config.vision_config, "tokens_per_second", self.rate)
        return QwenEncoder(network, configuration, tokenizer, rate, partial(self.native_blocks, rate))

    def unused_ids(self, config: Any) -> list[int]:
        """Return the token ids of the image and video placeholders and of the delimiters around them."""
        return [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
