"""Pools: patch grid (T h w D) -> tokens (N D)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_grid, token_count
from sfllava.types import SfllavaError


def _concat(grid: Tensor) -> Tensor:
    return grid.flatten(0, 2)


def _first_frame(grid: Tensor) -> Tensor:
    return grid[0].flatten(0, 1)


def _pairs(pool: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    # Pairs run along the flattened row-major patches, so at an odd width they cross the ends of rows.
    def run(grid: Tensor) -> Tensor:
        return pool(grid.flatten(1, 2).transpose(1, 2), kernel_size=2, stride=2).transpose(1, 2).flatten(0, 1)

    return run


def _windows(pool: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    def run(grid: Tensor) -> Tensor:
        return pool(grid.permute(0, 3, 1, 2), kernel_size=2, stride=2).permute(0, 2, 3, 1).flatten(0, 2)

    return run


def _spatial_temporal(grid: Tensor) -> Tensor:
    return F.adaptive_avg_pool3d(grid.permute(3, 0, 1, 2)[None], (16, 12, 12))[0].permute(1, 2, 3, 0).flatten(0, 2)


def _temporal_mean(grid: Tensor) -> Tensor:
    return grid.mean(dim=0).flatten(0, 1)


# name -> (function, what the patch grid must be, as a test and in words)
_ANY = (lambda h, w: True, "any patch grid")
_PAIRS = (lambda h, w: h * w % 2 == 0, "an even number of patches")
_WINDOWS = (lambda h, w: h % 2 == 0 and w % 2 == 0, "an even height and an even width")
POOLS = {
    "concat": (_concat, *_ANY),
    "spatial_1d_max_pool": (_pairs(F.max_pool1d), *_PAIRS),
    "spatial_1d_avg_pool": (_pairs(F.avg_pool1d), *_PAIRS),
    "spatial_2d_max_pool": (_windows(F.max_pool2d), *_WINDOWS),
    "spatial_2d_avg_pool": (_windows(F.avg_pool2d), *_WINDOWS),
    "spatial_temporal_pool": (_spatial_temporal, *_ANY),
    "temporal_global_pool": (_temporal_mean, *_ANY),
    "none": (_first_frame, *_ANY),
}
SLOW_POOLS = tuple(name for name in POOLS if name != "none")


@dataclass(frozen=True)
class Pool:
    """One pool over all frames, by name: (T h w D) -> (N D).

    `concat` keeps all patches; `spatial_1d_*` pools pairs of the flattened patches, `spatial_2d_*` 2x2
    windows; `spatial_temporal_pool` averages to 16x12x12; `temporal_global_pool` averages over frames;
    `none` is the first frame's patches alone.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in POOLS:
            raise SfllavaError(f"no pool is called {self.name!r}; there are {', '.join(POOLS)}")

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        run, allowed, needed = POOLS[self.name]
        _, h, w, _ = grid.shape
        if not allowed(h, w):
            raise SfllavaError(f"pool {self.name} needs {needed}, got a grid of {h}x{w} patches")
        return run(grid)

    def token_count(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Tokens for `frames` frames of `h` x `w` patches."""
        return token_count(self, frames, h, w)

    def __str__(self) -> str:
        return self.name
