"""Positions in time, height and width (M-RoPE) of pooled visual tokens, and the text between them.

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

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.sources import TokenSource


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
