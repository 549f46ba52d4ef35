"""Frames chosen by clustering their features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.aggregators.pools import SLOW_POOLS, Pool
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class Keyframes:
    """The frames nearest to the centres of `keyframes` clusters of frame features, in time's order, then a pool.

    The choice does not depend on the question. Source: KTV, arXiv 2602.03615, which finds that better than choosing
    by similarity to the question; it clusters another vision model's features, this one the projected patches' mean.
    """

    keyframes: int = 6
    pool: str = "concat"

    def __post_init__(self) -> None:
        check_counts(self, "keyframes", self.keyframes)
        if self.pool not in SLOW_POOLS:
            raise SfllavaError(f"no pool is called {self.pool!r}; there are {', '.join(SLOW_POOLS)}")

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        return Pool(self.pool)(grid[keyframes(grid.flatten(1, 2).mean(1), self.keyframes)])

    def __str__(self) -> str:
        return f"keyframes-{self.keyframes}frms_{self.pool}"


def keyframes(features: Tensor, n: int, rounds: int = 20) -> list[int]:
    """Indices, in order, of the frames nearest to n k-means centres of (T D) features; the same at every call."""
    x = F.normalize(features.float(), dim=-1)
    if len(x) <= n:
        return list(range(len(x)))
    # centres start far from one another: first the frame that is least like the mean, then the farthest in turn
    distances = (x - x.mean(0)).norm(dim=-1)
    centres = x[distances.argmax()][None]
    for _ in range(n - 1):
        centres = torch.cat([centres, x[torch.cdist(x, centres).amin(1).argmax()][None]])
    for _ in range(rounds):
        owner = torch.cdist(x, centres).argmin(1)
        counts = owner.bincount(minlength=n)[:, None]
        means = torch.zeros_like(centres).index_add_(0, owner, x) / counts.clamp(min=1)
        means = torch.where(counts > 0, means, centres)
        if torch.equal(means, centres):
            break
        centres = means
    chosen: list[int] = []
    for row in torch.cdist(centres, x):
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return sorted(chosen)
