"""Pools, by the names of the published code: patch grid (T h w D) -> visual tokens (N D)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_grid, token_count
from sfllava.aggregators.methods import Method
from sfllava.types import SfllavaError


def _pool_pairs(pool: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """Pool pairs of neighbours in the flattened (row-major) patches; if the width is odd, a pair may span two rows."""
    return lambda grid: pool(grid.flatten(1, 2).transpose(1, 2), 2, 2).transpose(1, 2).flatten(0, 1)


def _pool_windows(pool: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """Pool 2x2 windows of patches."""
    return lambda grid: pool(grid.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1).flatten(0, 2)


def _spatial_temporal(grid: Tensor) -> Tensor:
    return F.adaptive_avg_pool3d(grid.permute(3, 0, 1, 2)[None], (16, 12, 12))[0].permute(1, 2, 3, 0).flatten(0, 2)


class _Entry(NamedTuple):
    run: Callable[[Tensor], Tensor]
    requirement: str = ""  # what the size of the grid must be, for the error message
    accepts: Callable[[int, int], bool] = lambda h, w: True


def _even_count(h: int, w: int) -> bool:
    return h * w % 2 == 0


def _even_sides(h: int, w: int) -> bool:
    return h % 2 == 0 and w % 2 == 0


_EVEN_COUNT = ("an even number of patches", _even_count)
_EVEN_SIDES = ("an even height and an even width", _even_sides)
POOLS = {
    "concat": _Entry(lambda grid: grid.flatten(0, 2)),
    "spatial_1d_max_pool": _Entry(_pool_pairs(F.max_pool1d), *_EVEN_COUNT),
    "spatial_1d_avg_pool": _Entry(_pool_pairs(F.avg_pool1d), *_EVEN_COUNT),
    "spatial_2d_max_pool": _Entry(_pool_windows(F.max_pool2d), *_EVEN_SIDES),
    "spatial_2d_avg_pool": _Entry(_pool_windows(F.avg_pool2d), *_EVEN_SIDES),
    "spatial_temporal_pool": _Entry(_spatial_temporal),
    "temporal_global_pool": _Entry(lambda grid: grid.mean(dim=0).flatten(0, 1)),
    "none": _Entry(lambda grid: grid[0].flatten(0, 1)),
}
SLOW_POOLS = tuple(name for name in POOLS if name != "none")
BUDGET_POOLS = ("spatial_1d_max_pool", "spatial_2d_avg_pool", "concat")  # the pools that are tried for a token budget


@dataclass(frozen=True)
class Pool:
    """One pool over all frames: (T h w D) -> (N D).

    Attributes:
        name: `concat` keeps all patches. `spatial_1d_*` pools pairs of the flattened patches, `spatial_2d_*` pools 2x2
            windows. `spatial_temporal_pool` averages to 16 frames of 12x12 tokens. `temporal_global_pool` averages over
            all frames. `none` keeps only the patches of the first frame.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in POOLS:
            raise SfllavaError(f"no pool is called {self.name!r}; choose from {', '.join(POOLS)}")

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        pool = POOLS[self.name]
        _, h, w, _ = grid.shape
        if not pool.accepts(h, w):
            raise SfllavaError(f"pool {self.name} needs {pool.requirement}, got a grid of {h}x{w} patches")
        return pool.run(grid)

    def token_count(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Count the tokens for `frames` frames of `h` x `w` patches."""
        return token_count(self, frames, h, w)

    def __str__(self) -> str:
        return self.name


METHOD = Method(
    pattern=f"({'|'.join(POOLS)})",
    usage=f"or one of {', '.join(POOLS)} (POOL may be any of these except 'none')",
    make=Pool,
    rank=90,
)
