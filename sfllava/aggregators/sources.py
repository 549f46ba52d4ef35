"""Where each visual token comes from: its shares of frames and patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfllava.aggregators.base import makes_images, name_of, token_parts
from sfllava.aggregators.tower import grid_for
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class TokenSource:
    """The consecutive visual tokens of one part, and where each comes from.

    Attributes:
        name: the part, such as "slow" or "fast".
        first: index of its first token among all visual tokens.
        frames: (N T) each token's shares of the sampled frames; a row sums to 1.
        patches: (N h w) each token's shares of the patches of a frame; a token's shares sum to 1.
    """

    name: str
    first: int
    frames: Tensor
    patches: Tensor

    @property
    def tokens(self) -> slice:
        """The tokens' place among all visual tokens."""
        return slice(self.first, self.first + len(self.frames))

    @property
    def time(self) -> Tensor:
        """(N) centres, as an index of the sampled frames."""
        return _centre(self.frames)

    @property
    def row(self) -> Tensor:
        """(N) centres, as an index of the rows of patches."""
        return _centre(self.patches.sum(2))

    @property
    def column(self) -> Tensor:
        """(N) centres, as an index of the columns of patches."""
        return _centre(self.patches.sum(1))

    @property
    def time_extent(self) -> Tensor:
        """(N) frames from the first to the last that a token comes from."""
        return _extent(self.frames)

    @property
    def row_extent(self) -> Tensor:
        """(N) rows of patches from the first to the last that a token comes from."""
        return _extent(self.patches.sum(2))

    @property
    def column_extent(self) -> Tensor:
        """(N) columns of patches from the first to the last that a token comes from."""
        return _extent(self.patches.sum(1))

    def heat(self, weights: Tensor) -> Tensor:
        """Spread weights (N) of these tokens over frames and patches (T h w); the sum stays."""
        spread = (self.frames * weights[:, None]).T @ self.patches.flatten(1)
        return spread.unflatten(1, self.patches.shape[1:])


def token_sources(aggregator: Any, grid: Any, frames: int | None = None) -> list[TokenSource]:
    """Map each visual token back to frames and patches.

    By default the aggregator runs on markers instead of features: one channel for each frame and one for each patch.
    A pool of your own is thus mapped too, if it averages or takes maxima over some patches of some frames.

    Args:
        aggregator: any aggregator.
        grid: (T h w D) the patch grid that it aggregates.
        frames: sampled frames of the video; needed where the grid is of images made of them, else T.

    Returns:
        One source for each part that has tokens, in the order of the tokens.

    Raises:
        SfllavaError: the tokens cannot be mapped back, or `frames` is missing.
    """
    grid = grid_for(aggregator, grid)
    if hasattr(aggregator, "token_sources"):
        if frames is None and makes_images(aggregator):
            raise SfllavaError(f"{name_of(aggregator)} makes images of frames: needed the number of sampled frames")
        return aggregator.token_sources(grid, len(grid) if frames is None else frames)
    if makes_images(aggregator):
        raise SfllavaError(f"{name_of(aggregator)} makes images of frames but has no token_sources(grid, frames)")
    return sources_of_parts(token_parts(aggregator, markers(grid)), grid)


def markers(grid: Tensor) -> Tensor:
    """Return (T h w T+h*w): one-hot channels for the frame, then one-hot channels for the patch, of each position."""
    t, h, w, _ = grid.shape
    frames = torch.eye(t)[:, None, None].expand(t, h, w, t)
    patches = torch.eye(h * w).reshape(1, h, w, h * w).expand(t, h, w, h * w)
    return torch.cat([frames, patches], dim=-1)


def sources_of_parts(marked: Mapping[str, Tensor], grid: Tensor) -> list[TokenSource]:
    """Read the sources off parts that were aggregated from `markers(grid)`."""
    t, h, w, _ = grid.shape
    found, first = [], 0
    for name, part in marked.items():
        shares = [one / one.sum(1, keepdim=True) for one in (part[:, :t], part[:, t:])]
        if part.shape[1:] != (t + h * w,) or not all(one.isfinite().all() and (one >= 0).all() for one in shares):
            raise SfllavaError(f"part {name!r}: its tokens cannot be mapped back to frames, since they are no pooling")
        if len(part):
            found.append(TokenSource(name, first, shares[0], shares[1].unflatten(1, (h, w))))
        first += len(part)
    return found


def _centre(shares: Tensor) -> Tensor:
    return shares @ torch.arange(shares.shape[1], dtype=shares.dtype)


def _extent(shares: Tensor) -> Tensor:
    inside = (shares > 0).int()
    return shares.shape[1] - inside.flip(1).argmax(1) - inside.argmax(1)
