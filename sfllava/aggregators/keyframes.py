"""Frames chosen by clustering their features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.pools import BUDGET_POOLS, POOL_NAMES, Pool, is_slow_pool
from sfllava.aggregators.sources import TokenSource, markers, sources_of_parts
from sfllava.catalogue import unknown_name
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class Keyframes:
    """The frames nearest to the centres of clusters of frame features, in temporal order, then a pool.

    The choice does not depend on the question. Source: KTV, arXiv 2602.03615, which finds that better than choosing
    by similarity to the question. KTV clusters the features of another vision model; this clusters the mean of the
    projected patches.

    Attributes:
        keyframes: clusters, and so frames.
        pool: name of the pool.
    """

    keyframes: int = 6
    pool: str = "concat"
    needs_features = True

    def __post_init__(self) -> None:
        check_counts(self, "keyframes", self.keyframes)
        if not is_slow_pool(self.pool):
            raise SfllavaError(unknown_name("pool", self.pool, POOL_NAMES))

    def __call__(self, grid: Tensor) -> Tensor:
        return Pool(self.pool)(grid[self._choose(grid)])

    def token_sources(self, grid: Tensor, frames: int) -> list[TokenSource]:
        """Map each token to the frames that were chosen for these features."""
        return sources_of_parts({"key frames": Pool(self.pool)(markers(grid)[self._choose(grid)])}, grid)

    def _choose(self, grid: Tensor) -> list[int]:
        check_grid(grid)
        return keyframes(grid.detach().flatten(1, 2).mean(1), self.keyframes)

    def __str__(self) -> str:
        return f"keyframes-{self.keyframes}frms_{self.pool}"


def keyframes(features: Tensor, n: int, rounds: int = 20) -> list[int]:
    """Choose the frames nearest to the centres of k-means clusters; the same ones at every call.

    Args:
        features: (T D).
        n: clusters.
        rounds: at most so many rounds of k-means.

    Returns:
        `n` indices of frames in order, or all where there are no more.
    """
    x = F.normalize(features.float(), dim=-1)
    if len(x) <= n:
        return list(range(len(x)))
    centres = _cluster(x, _first_centres(x, n), rounds)
    chosen: list[int] = []
    for distances in torch.cdist(centres, x):
        distances[chosen] = torch.inf
        chosen.append(int(distances.argmin()))
    return sorted(chosen)


def _first_centres(x: Tensor, n: int) -> Tensor:
    """Start far apart: the frame that is least like the mean, then always the one farthest from those chosen."""
    centres = x[(x - x.mean(0)).norm(dim=-1).argmax()][None]
    while len(centres) < n:
        centres = torch.cat([centres, x[torch.cdist(x, centres).amin(1).argmax()][None]])
    return centres


def _cluster(x: Tensor, centres: Tensor, rounds: int) -> Tensor:
    """Move each centre to the mean of the frames that are nearest to it, until none moves."""
    for _ in range(rounds):
        owner = torch.cdist(x, centres).argmin(1)
        counts = owner.bincount(minlength=len(centres))[:, None]
        means = torch.zeros_like(centres).index_add_(0, owner, x) / counts.clamp(min=1)
        means = torch.where(counts > 0, means, centres)  # a cluster without frames stays where it is
        if torch.equal(means, centres):
            break
        centres = means
    return centres


METHOD = Method(
    pattern=rf"keyframes-{COUNT}frms_([a-z0-9_]+)",
    usage="keyframes-{FRAMES}frms_{POOL}",
    make=lambda frames, pool: Keyframes(int(frames), pool),
    budgets={
        "keyframes": Candidates(
            lambda tokens, frames, patches: [Keyframes(k, pool) for k in range(1, frames + 1) for pool in BUDGET_POOLS]
        )
    },
    rank=4,
)
