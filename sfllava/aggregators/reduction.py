"""What token reducers share: an exact number of tokens, each a weighted sum (or maximum) of patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.aggregators.sources import TokenSource
from sfllava.aggregators.tower import features_of
from sfllava.types import SfllavaError

_ROWS = 16384  # patches weighted at a time, so that their copies stay small


@dataclass(frozen=True)
class Reduction:
    """Which patches make which token, as K entries.

    Attributes:
        count: tokens N.
        token: (K) long, the token of each entry, from 0 to N - 1.
        patch: (K) long, its patch, as an index of the flattened grid T*h*w.
        weight: (K) float32, its weight; the token is the weighted sum of its patches.
        maximum: the token is the element-wise maximum of its patches instead.
    """

    count: int
    token: Tensor
    patch: Tensor
    weight: Tensor
    maximum: bool = False

    def tokens(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (N D) in the dtype of the grid; sums are made in float32."""
        patches = grid.flatten(0, 2)
        if self.maximum:
            index = self.token[:, None].expand(-1, patches.shape[1])
            out = patches.new_full((self.count, patches.shape[1]), -torch.inf)
            return out.scatter_reduce(0, index, patches[self.patch], "amax")
        out = patches.new_zeros(self.count, patches.shape[1], dtype=torch.float32)
        for first in range(0, len(self.token), _ROWS):
            part = slice(first, first + _ROWS)
            rows = patches[self.patch[part]].float() * self.weight[part, None]
            out = out.index_add(0, self.token[part], rows)
        return out.to(grid.dtype)

    def sources(self, name: str, shape: tuple[int, int, int]) -> list[TokenSource]:
        """Map each token to its shares of the frames and of the patches of a frame.

        Args:
            name: the part.
            shape: frames, rows and columns of the grid.
        """
        t, h, w = shape
        token, patch, weight = (value.cpu() for value in (self.token, self.patch, self.weight.double()))
        share = weight / weight.new_zeros(self.count).index_add_(0, token, weight)[token]
        frames, places = share.new_zeros(self.count * t), share.new_zeros(self.count * h * w)
        frames.index_add_(0, token * t + patch // (h * w), share)
        places.index_add_(0, token * h * w + patch % (h * w), share)
        return [TokenSource(name, 0, frames.reshape(-1, t).float(), places.reshape(-1, h, w).float())]


@dataclass(frozen=True)
class Reducer:
    """A method that makes exactly `tokens` tokens of all frames, or keeps all patches where there are no more.

    A subclass makes its choices in `reduce`, on features without derivatives.

    Attributes:
        tokens: visual tokens of the video.
    """

    tokens: int = 3680
    title: ClassVar[str] = ""
    every_frame: ClassVar[bool] = False
    """Whether each frame has tokens of its own, so that there must be at least as many tokens as frames"""
    needs: ClassVar[tuple[str, ...]] = ()
    needs_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "tokens", self.tokens)

    def reduce(self, grid: Any) -> Reduction:
        """Choose which patches make which token; `grid` has more patches than tokens are wanted."""
        raise NotImplementedError

    def __call__(self, grid: Any) -> Tensor:
        features = features_of(grid)
        check_grid(features)
        count = self._count(features)
        if features.is_meta:
            return features.new_empty(count, features.shape[-1])
        return self._reduction(grid, features, count).tokens(features)

    def with_choices(self, grid: Tensor) -> Callable[[Tensor], Tensor]:
        """Make the choices on one feature set (T h w D); return the function that pools any set with them."""
        check_grid(grid)
        return self._reduction(grid, grid, self._count(grid)).tokens

    def token_sources(self, grid: Any, frames: int) -> list[TokenSource]:
        """Map each token to the patches that it was made of, for these features."""
        features = features_of(grid)
        check_grid(features)
        t, h, w, _ = features.shape
        return self._reduction(grid, features, self._count(features)).sources(self.title, (t, h, w))

    def _count(self, features: Tensor) -> int:
        t, h, w, _ = features.shape
        if self.every_frame and self.tokens < t:
            raise SfllavaError(f"{self} needs at least one token for each of {t} frames")
        return min(self.tokens, t * h * w)

    def _reduction(self, grid: Any, features: Tensor, count: int) -> Reduction:
        patches = features.shape[:3].numel()
        if count == patches:  # no room needed: all stay, in order
            index = torch.arange(patches, device=features.device)
            return Reduction(patches, index, index, torch.ones(patches, device=features.device))
        found = self.reduce(grid)
        assert found.count == count, (str(self), found.count, count)
        return found

    def __str__(self) -> str:
        return f"{self.title}-{self.tokens}"


def spread(total: int, weights: Sequence[float], most: Sequence[int], least: int = 0) -> list[int]:
    """Divide tokens in proportion to weights, exactly: shares are rounded down, the largest remainders get one more.

    Args:
        total: tokens to divide; at most sum(most).
        weights: of each part, not negative.
        most: largest number of each part; what a part cannot take goes to the others.
        least: smallest number of each part, taken from the largest ones; not used where there is not enough for all.

    Returns:
        Whole numbers that sum to min(total, sum(most)).
    """
    total, open_parts, given = min(total, sum(most)), list(range(len(most))), [0.0] * len(most)
    rest = float(total)
    while open_parts:
        mass = sum(weights[i] for i in open_parts)
        shares = {i: rest * weights[i] / mass if mass else rest / len(open_parts) for i in open_parts}
        full = [i for i in open_parts if shares[i] >= most[i] - 1e-9]
        for i in full or open_parts:
            given[i] = float(most[i]) if full else shares[i]
        if not full:
            break
        rest -= sum(most[i] for i in full)
        open_parts = [i for i in open_parts if i not in set(full)]
    counts = [int(value + 1e-9) for value in given]
    order = sorted(range(len(most)), key=lambda i: counts[i] - given[i])  # stable: the first of equal remainders
    for i in [i for i in order if counts[i] < most[i]][: total - sum(counts)]:
        counts[i] += 1
    floors = [min(least, limit) for limit in most]
    for i in range(len(most)):
        while counts[i] < floors[i] and sum(floors) <= total:
            counts[max(range(len(most)), key=lambda j: counts[j])] -= 1
            counts[i] += 1
    return counts


def joined(parts: Sequence[tuple[int, Tensor, Tensor, Tensor]], maximum: bool = False) -> Reduction:
    """Join reductions (count, token, patch, weight) into one; the tokens of each follow those of the one before."""
    first, tokens = 0, []
    for count, token, _, _ in parts:
        tokens.append(token + first)
        first += count
    patches, weights = torch.cat([part[2] for part in parts]), torch.cat([part[3] for part in parts])
    return Reduction(first, torch.cat(tokens), patches, weights.float(), maximum)


def order_by(values: Tensor, descending: bool = False) -> Tensor:
    """Sort along the last axis; equal values keep their order on every device."""
    return values.argsort(dim=-1, descending=descending, stable=True)
