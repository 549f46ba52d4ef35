"""Pools, with the names of the published code where it has them: patch grid (T h w D) -> visual tokens (N D)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_grid, token_count
from sfllava.aggregators.methods import COUNT, Method
from sfllava.catalogue import unknown_name
from sfllava.types import SfllavaError


def _pool_pairs(pool: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """Pool pairs of neighbours in the flattened (row-major) patches; if the width is odd, a pair may span two rows."""
    return lambda grid: pool(grid.flatten(1, 2).transpose(1, 2), 2, 2).transpose(1, 2).flatten(0, 1)


def _pool_windows(pool: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """Pool 2x2 windows of patches."""
    return lambda grid: pool(grid.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1).flatten(0, 2)


def _spatial_temporal(grid: Tensor) -> Tensor:
    return F.adaptive_avg_pool3d(grid.permute(3, 0, 1, 2)[None], (16, 12, 12))[0].permute(1, 2, 3, 0).flatten(0, 2)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "concat": lambda grid: grid.flatten(0, 2),
    "spatial_1d_max_pool": _pool_pairs(F.max_pool1d),
    "spatial_1d_avg_pool": _pool_pairs(F.avg_pool1d),
    "spatial_2d_max_pool": _pool_windows(F.max_pool2d),
    "spatial_2d_avg_pool": _pool_windows(F.avg_pool2d),
    "spatial_temporal_pool": _spatial_temporal,
    "temporal_global_pool": lambda grid: grid.mean(dim=0).flatten(0, 1),
    "none": lambda grid: grid[0].flatten(0, 1),
}
SIZED_POOLS = ("bilinear_{H}x{W}", "adaptive_{H}x{W}")
SLOW_POOLS = tuple(name for name in POOLS if name != "none")
POOL_NAMES = (*SLOW_POOLS, *SIZED_POOLS)
BUDGET_POOLS = ("spatial_1d_max_pool", "spatial_2d_avg_pool", "concat")  # the pools tried to meet a token budget


def find_pool(name: str) -> Callable[[Tensor], Tensor]:
    """Find a pool, (T h w D) -> (N D), by its name.

    Raises:
        SfllavaError: There is no pool of this name.
    """
    if name in POOLS:
        return POOLS[name]
    if found := re.fullmatch(rf"(bilinear|adaptive)_{COUNT}x{COUNT}", name, re.ASCII):
        size = (int(found[2]), int(found[3]))
        resize = partial(F.interpolate, size=size, mode="bilinear")
        pool = resize if found[1] == "bilinear" else partial(F.adaptive_avg_pool2d, output_size=size)
        return lambda grid: pool(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(0, 2)
    raise SfllavaError(unknown_name("pool", name, (*POOLS, *SIZED_POOLS)))


def is_slow_pool(name: str) -> bool:
    """Return whether a Slow pathway can use the pool of this name: any pool except `none`."""
    try:
        return name != "none" and bool(find_pool(name))
    except SfllavaError:
        return False


@dataclass(frozen=True)
class Pool:
    """One pool over all frames: (T h w D) -> (N D).

    Attributes:
        name: `concat` keeps all patches. `spatial_1d_*` pools pairs of the flattened patches, `spatial_2d_*` pools 2x2
            windows; on an odd grid, the last patches that fill no pair or window are dropped, as in the published code.
            `bilinear_14x14` interpolates each frame to 14x14 tokens, `adaptive_14x14` averages each frame to 14x14
            tokens. `spatial_temporal_pool` averages to 16 frames of 12x12 tokens. `temporal_global_pool` averages over
            all frames. `none` keeps only the patches of the first frame.
    """

    name: str

    def __post_init__(self) -> None:
        find_pool(self.name)

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        try:
            return find_pool(self.name)(grid)
        except RuntimeError as error:
            _, h, w, _ = grid.shape
            raise SfllavaError(f"pool {self.name} needs a larger grid than {h}x{w} patches") from error

    def token_count(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Count the tokens for `frames` frames of `h` x `w` patches."""
        return token_count(self, frames, h, w)

    def __str__(self) -> str:
        return self.name


METHOD = Method(
    pattern=rf"({'|'.join(POOLS)}|(?:bilinear|adaptive)_[1-9]\d*x[1-9]\d*)",
    usage=f"or one of {', '.join((*POOLS, *SIZED_POOLS))} (POOL may be any of these except 'none')",
    make=Pool,
    rank=90,
)
