"""What Qwen2.5-VL and Qwen3-VL have in common: merged patches, positions in time, height and width, text in the video.

A frame is encoded as an image: repeated for each frame of a temporal patch, so that one frame is one grid of patches
and can be encoded, cached and pooled alone. `native` encodes pairs of frames.

The visual part is a sequence of blocks between `<|vision_start|>` and `<|vision_end|>`. A block begins at the position
after the text before it. With "time", a token has three positions in its block: the time of its frames since the first
frame in steps of `1 / rate` seconds, and the row and the column of the centre of the patches that it was pooled from,
all rounded down. The text after a block goes on behind the largest position. With timestamps each frame is a block of
its own, and time stays at the start of the block, as in Qwen3-VL. With "consecutive", tokens are counted like text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.native import NativeEncoding
from sfllava.aggregators.sources import TokenSource, token_sources
from sfllava.models.checkpoint import CheckpointError, check_sizes
from sfllava.models.family import Configuration, LoadOptions, from_dict, normalize, read_preprocessor, read_statistics
from sfllava.models.operations import Layers, Shape
from sfllava.models.text_layers import embedding_parameters, text_layers
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.visual_tokens import VisualTokens, aggregate
from sfllava.types import SfllavaError

# Patches of the tower along a side: 336 or 384 pixels, which are 12x12 merged patches
_SIDE = 24


@dataclass(frozen=True)
class Block:
    """Visual tokens between `<|vision_start|>` and `<|vision_end|>`, and the text before them.

    Attributes:
        tokens: (n) Indices of the tokens.
        positions: (n 3) Their positions in the block; None: counted like text.
        end: Where the text after them goes on, counted from the start of the block.
        text: What is written before the block.
    """

    tokens: Tensor
    positions: Tensor | None
    end: int
    text: str = ""


class QwenEncoder:
    """The vision tower of a network, with the merger of its patches.

    Args:
        network: The loaded transformers model.
        configuration: Its checked config.
        tokenizer: Its tokenizer, for timestamps.
        rate: Positions per second.
        native_rule: (seconds, images, grid) -> the blocks of `native`.
    """

    def __init__(
        self, network: Any, configuration: Configuration, tokenizer: Tokenizer, rate: float, native_rule: Any
    ) -> None:
        self._tower, self._embed = network.model.visual, network.model.language_model.embed_tokens
        self._configuration, self._tokenizer, self._dtype = configuration, tokenizer, network.dtype
        self._rate, self._native_rule = rate, native_rule
        self._width = configuration.shape.language.width
        config = configuration.config
        self._start, self._end = config.vision_start_token_id, config.vision_end_token_id

    @property
    def device(self) -> torch.device:
        """The device on which frames enter."""
        return self._tower.device

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (T H W 3), already resized: (T h w D), or (T h w (1+S)*D) with deepstack sets."""
        repeats = self._configuration.shape.temporal_patch
        return self._encode(self._normalize(frames)[:, None].expand(-1, repeats, -1, -1, -1))

    def encode_native(self, frames: Tensor) -> Tensor:
        """Encode consecutive frames together, as a temporal patch; the last frame is repeated where one is missing."""
        size = self._configuration.shape.temporal_patch
        missing = -len(frames) % size
        pixels = self._normalize(torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)]))
        return self._encode(pixels.unflatten(0, (-1, size)))

    def _normalize(self, frames: Tensor) -> Tensor:
        return normalize(frames, self._configuration.statistics).to(self._dtype)

    def _encode(self, pixels: Tensor) -> Tensor:
        """(T P 3 H W) -> (T h w D), for T images of P frames each."""
        shape = self._configuration.shape
        high, wide = shape.tower
        merge = high // shape.grid[0]
        # patches come merge window by merge window; the numbers of a patch are channel, frame, row, column
        parts = pixels.unflatten(-1, (wide // merge, merge, shape.patch))
        parts = parts.unflatten(-4, (high // merge, merge, shape.patch))
        patches = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).flatten(5).flatten(0, 4)
        sizes = torch.tensor([[1, high, wide]], device=pixels.device).expand(len(pixels), -1)
        out = self._tower(patches, grid_thw=sizes)
        sets = [out.pooler_output, *(getattr(out, "deepstack_features", None) or ())]
        return torch.cat(sets, dim=-1).unflatten(0, (len(pixels), *shape.grid))

    def visual_tokens(self, aggregator: Any, grid: Tensor, seconds: np.ndarray | None) -> VisualTokens:
        """Aggregate a grid, and place its tokens and the text around them."""
        if grid.shape[-1] % self._width:
            raise SfllavaError(f"needed a grid of this model's encode, got {grid.shape[-1]} channels")
        embeddings, deepstack = aggregate(aggregator, grid, self._width)
        if not len(embeddings):
            return VisualTokens(embeddings)
        blocks = self._blocks(aggregator, grid[..., : self._width], seconds, len(embeddings))
        return self._place(embeddings, deepstack, list(blocks))

    def _blocks(self, aggregator: Any, grid: Tensor, seconds: np.ndarray | None, count: int) -> Iterator[Block]:
        options = self._configuration.options
        per_image = getattr(aggregator, "frames_per_image", 1)
        # times are unknown for a folder of images: one frame per second
        known = seconds is not None and np.isfinite(seconds).all()
        times = torch.tensor(np.asarray(seconds) if known else np.arange(len(grid) * per_image), dtype=torch.float64)
        if isinstance(aggregator, NativeEncoding):
            return self._native_rule(times, len(grid), self._configuration.shape.grid)
        if options.positions == "consecutive" and not options.timestamps:
            return iter([Block(torch.arange(count), None, count)])
        placed = place_in_time(token_sources(aggregator, grid.float().cpu(), len(times)), times, self._rate)
        if not options.timestamps:
            return iter([Block(torch.arange(count), placed.positions, int(placed.positions.max()) + 1)])
        return frame_blocks(placed, options.positions)

    def _place(self, embeddings: Tensor, deepstack: Tensor | None, blocks: Sequence[Block]) -> VisualTokens:
        """Put blocks of visual tokens and the text around them in order."""
        rows: list[Tensor] = []  # of `embeddings`, or of the text behind them
        ids: list[int] = []
        positions, at = [], 0

        def write(text: Sequence[int]) -> None:
            nonlocal at
            rows.append(len(embeddings) + len(ids) + torch.arange(len(text)))
            positions.append((at + torch.arange(len(text)))[:, None].expand(-1, 3))
            ids.extend(text)
            at += len(text)

        for block in blocks:
            write([*(self._tokenizer.encode(block.text) if block.text else []), self._start])
            n = len(block.tokens)
            inside = torch.arange(n)[:, None].expand(-1, 3) if block.positions is None else block.positions
            rows.append(block.tokens)
            positions.append(at + inside)
            at += block.end
            write([self._end])
        order = torch.cat(rows).to(embeddings.device)
        text = self._embed(torch.tensor(ids, device=self._embed.weight.device)).to(embeddings.device, embeddings.dtype)
        zeros = None if deepstack is None else deepstack.new_zeros(len(ids), *deepstack.shape[1:])
        return VisualTokens(
            torch.cat([embeddings, text])[order],
            order < len(embeddings),
            torch.cat(positions).to(embeddings.device),
            at,
            None if deepstack is None else torch.cat([deepstack, zeros])[order],  # type: ignore[list-item]
        )


@dataclass(frozen=True)
class Placed:
    """(N 3) `positions` of tokens, and (N) the `seconds` of each."""

    positions: Tensor
    seconds: Tensor


def place_in_time(sources: Sequence[TokenSource], times: Tensor, rate: float) -> Placed:
    """Place tokens by where they come from.

    Args:
        sources: Of all visual tokens, in order.
        times: (T) Seconds of the sampled frames.
        rate: Positions per second.
    """
    seconds = torch.cat([source.frames.double() @ times for source in sources])
    # the small number keeps 3 * (1 / 3) from being rounded down to 0
    time = ((seconds - times.min()) * rate + 1e-6).floor()
    rows, columns = (torch.cat([_centre(source.patches.sum(axis)) for source in sources]) for axis in (2, 1))
    return Placed(torch.stack([time, rows, columns], dim=1).long(), seconds)


def _centre(shares: Tensor) -> Tensor:
    """Return the centre of the extent of each token's shares (N n), rounded down."""
    inside = (shares > 0).int()
    first, last = inside.argmax(1), shares.shape[1] - 1 - inside.flip(1).argmax(1)
    return (first + last) // 2


def frame_blocks(placed: Placed, rule: str) -> Iterator[Block]:
    """Yield a block with a timestamp for each run of tokens of one time."""
    cuts = (placed.seconds.diff() != 0).nonzero()[:, 0] + 1
    for tokens in torch.arange(len(placed.seconds)).tensor_split(cuts.tolist()):
        text = f"<{float(placed.seconds[tokens[0]]):.1f} seconds>"
        if rule == "consecutive":
            yield Block(tokens, None, len(tokens), text)
        else:
            positions = placed.positions[tokens].clone()
            positions[:, 0] = 0
            yield Block(tokens, positions, int(positions.max()) + 1, text)


def grid_positions(images: int, grid: tuple[int, int], times: Tensor) -> Tensor:
    """Return the positions (images*h*w 3) of whole grids, with the position in time of each image."""
    time, rows, columns = torch.meshgrid(times.long(), torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.stack([time, rows, columns], dim=-1).reshape(images * grid[0] * grid[1], 3)


def pair_times(seconds: Tensor, images: int) -> Tensor:
    """Return the mean time of the first and last frame of each image; a missing frame repeats the last."""
    size = -(-len(seconds) // images)
    padded = torch.cat([seconds, seconds[-1:].expand(images * size - len(seconds))]).unflatten(0, (images, size))
    return (padded[:, 0] + padded[:, -1]) / 2


def configure(
    config_class: Any, config: dict[str, Any], folder: Path, options: LoadOptions, shape: Any, statistics: Any
) -> Configuration:
    """Check a config of either family.

    Args:
        config_class: The class of its config.
        config: The JSON of the config.
        folder: The checkpoint folder.
        options: How the checkpoint is to be used.
        shape: (text config, tower config) -> (layers of the tower, patch inputs' matrices, further fields of `Shape`).
        statistics: Mean and standard deviation where the checkpoint has no preprocessor.
    """
    where = folder / "config.json"
    for part in ("text_config", "vision_config"):
        if isinstance(given := config.get(part), dict):
            check_sizes(given, f"{where}: {part}")
    made: Any = from_dict(config_class, config, folder)
    tower, text = made.vision_config, made.get_text_config()
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
                f"{folder}: its processor has {name} {preprocessor[name]}, and its vision tower {wanted}: files of two "
                "checkpoints?"
            )
    if _SIDE % tower.spatial_merge_size:
        raise CheckpointError(f"{where}: spatial_merge_size must divide {_SIDE}, got {tower.spatial_merge_size}")
    side = _SIDE // tower.spatial_merge_size
    made_shape = shape(made, tower, (side, side))
    native = NativeEncoding((side, side), tower.temporal_patch_size)
    positions = text.max_position_embeddings
    return Configuration(
        made, made_shape, positions, _SIDE * tower.patch_size, native, positions,
        read_statistics(preprocessor, folder, statistics), options,
    )  # fmt: skip


def shape_of(config: Any, vision: Layers, grid: tuple[int, int], sets: int, rest: int, **more: Any) -> Shape:
    """Return the sizes of a model with `sets` mergers and `rest` parameters of the tower outside its layers."""
    tower = config.vision_config
    merged = tower.hidden_size * tower.spatial_merge_size**2
    matrices = ((merged, merged), (merged, tower.out_hidden_size)) * sets
    rest += embedding_parameters(config) + sum(inputs * outputs + outputs for inputs, outputs in matrices)
    return Shape(
        text_layers(config.get_text_config()), vision, config.get_text_config().vocab_size, grid, tower.patch_size,
        tower=(_SIDE, _SIDE), cls_tokens=0, temporal_patch=tower.temporal_patch_size, projector=matrices, rest=rest,
        **more,
    )  # fmt: skip
