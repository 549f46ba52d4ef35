"""What Qwen2.5-VL and Qwen3-VL share: merged patches, positions in time, height and width, and text between frames.

Each frame is encoded as a still image: it is repeated to fill a temporal patch, so that one frame gives one grid of
patches and can be encoded, cached and pooled on its own. `native` encodes pairs of consecutive frames instead.

The visual part is a sequence of blocks, each between `<|vision_start|>` and `<|vision_end|>`. The positions of a block
are counted from its start, and the start is the position after the text before it. The option `positions` decides how:

- "time": each token has three positions, all rounded down. The first is the time since the first frame, in steps of
  `1 / rate` seconds. The others are the row and the column of the centre of the patches that the token was pooled from.
  The text after the block starts after its largest position.
- "consecutive": tokens are counted like text.

With timestamps, each frame is a block of its own, and with "time" the first position is 0 in every block, as in
Qwen3-VL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import makes_images
from sfllava.aggregators.native import NativeEncoding
from sfllava.aggregators.sources import TokenSource, token_sources
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
from sfllava.models.operations import Layers, Shape
from sfllava.models.text_layers import embedding_parameters, text_layers
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.visual_tokens import VisualTokens, aggregate
from sfllava.types import SfllavaError

# Patches along each side of a frame in the tower, for frames of 336 or 384 pixels; merged 2x2, they give a 12x12 grid
_SIDE = 24
# Token ids of "<9999.9 seconds>", digit by digit
_TIMESTAMP = 12


@dataclass(frozen=True)
class Block:
    """Visual tokens between `<|vision_start|>` and `<|vision_end|>`, and the text before them.

    Attributes:
        tokens: (n) Indices of the visual tokens.
        positions: (n 3) Their positions, counted from the start of the block. None: they are counted like text.
        end: Position of the text after the block, counted from the start of the block.
        text: Text before the block.
    """

    tokens: Tensor
    positions: Tensor | None
    end: int
    text: str = ""


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


def frame_times(seconds: np.ndarray | None, frames: int) -> Tensor:
    """Return the times of the sampled frames, float64 (T).

    Args:
        seconds: (T) Times, NaN where unknown. Those between known ones are interpolated. None, or times that are all
            unknown as for a folder of images: one frame per second.
        frames: T, where `seconds` is None.
    """
    if seconds is None or not np.isfinite(seconds).any():
        return torch.arange(frames if seconds is None else len(seconds), dtype=torch.float64)
    index, known = np.arange(len(seconds)), np.isfinite(seconds)
    return torch.from_numpy(np.interp(index, index[known], np.asarray(seconds, float)[known]))


@dataclass(frozen=True)
class LocatedTokens:
    """Where and when visual tokens are in the video.

    Attributes:
        positions: (N 3) Positions in time, height and width.
        seconds: (N) Time of each token.
    """

    positions: Tensor
    seconds: Tensor


def locate_tokens(sources: Sequence[TokenSource], times: Tensor, rate: float) -> LocatedTokens:
    """Compute the positions of tokens from the frames and patches that they were pooled from.

    Args:
        sources: The sources of all visual tokens, in order.
        times: (T) Times of the sampled frames in seconds.
        rate: Positions per second.
    """
    seconds = torch.cat([source.frames.cpu().double() @ times for source in sources])
    # the small number makes up for rounding errors: 0.9999999 must become 1, not 0
    time = ((seconds - times.min()) * rate + 1e-6).floor()
    rows, columns = (torch.cat([_centre(source.patches.cpu().sum(axis)) for source in sources]) for axis in (2, 1))
    return LocatedTokens(torch.stack([time, rows, columns], dim=1).long(), seconds)


def _centre(shares: Tensor) -> Tensor:
    """Return the middle of the first and last index with a share (N n) above 0, for each token, rounded down."""
    inside = (shares > 0).int()
    first, last = inside.argmax(1), shares.shape[1] - 1 - inside.flip(1).argmax(1)
    return (first + last) // 2


def frame_blocks(located: LocatedTokens, positions_option: str) -> Iterator[Block]:
    """Yield one block with a timestamp for each run of consecutive tokens that have the same time."""
    cuts = (located.seconds.diff() != 0).nonzero()[:, 0] + 1
    for tokens in torch.arange(len(located.seconds)).tensor_split(cuts.tolist()):
        text = f"<{float(located.seconds[tokens[0]]):.1f} seconds>"
        if positions_option == "consecutive":
            yield Block(tokens, None, len(tokens), text)
        else:
            positions = located.positions[tokens].clone()
            positions[:, 0] = 0
            yield Block(tokens, positions, int(positions.max()) + 1, text)


def grid_positions(images: int, grid: tuple[int, int], times: Tensor) -> Tensor:
    """Return the positions (images*h*w 3) of all patches (h w) of images, given the position in time of each."""
    time, rows, columns = torch.meshgrid(times.long(), torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.stack([time, rows, columns], dim=-1).reshape(images * grid[0] * grid[1], 3)


def pair_times(seconds: Tensor, images: int) -> Tensor:
    """Return the time of each image: the mean of its first and last frame's, where the last frame may be repeated."""
    size = -(-len(seconds) // images)
    padded = torch.cat([seconds, seconds[-1:].expand(images * size - len(seconds))]).unflatten(0, (images, size))
    return (padded[:, 0] + padded[:, -1]) / 2


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
    for name in ("patch_size", "merge_size", "temporal_patch_size"):
        wanted = getattr(tower, "spatial_merge_size" if name == "merge_size" else name)
        if preprocessor.get(name, wanted) != wanted:
            raise CheckpointError(
                f"{folder}: the preprocessor has {name} {preprocessor[name]}, but the vision tower has {wanted}; are "
                "these files from two checkpoints?"
            )
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
