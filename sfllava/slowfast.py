"""Patch grid -> visual tokens: the pools and the two pathways (arXiv 2407.15841, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.types import SfllavaError, key_of, name_of


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


def check_grid(grid: Tensor) -> None:
    """Raise SfllavaError unless a patch grid is (T h w D) with no empty axis."""
    if grid.ndim != 4 or 0 in grid.shape:
        raise SfllavaError(f"needed a patch grid of shape (T h w D) with no empty axis, got {tuple(grid.shape)}")


def budget(aggregation: Callable[[Tensor], Tensor], frames: int, h: int = 24, w: int = 24) -> int:
    """Visual tokens that `aggregation` makes of `frames` frames of `h` x `w` patches, by running it on shapes alone."""
    if frames < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    if compose := getattr(aggregation, "compose", None):
        frames = len(compose(np.zeros((frames, 4, 4, 3), np.uint8)))
    try:
        return aggregation(torch.empty(frames, h, w, 1, device="meta")).shape[0]
    except SfllavaError:
        raise
    except Exception:  # one that looks at values
        return aggregation(torch.zeros(frames, h, w, 1)).shape[0]


def front(aggregation: object) -> object:
    """A key of what the tokens begin with: aggregations of one front begin with the same tokens of the same frames."""
    if isinstance(aggregation, SlowFast):
        return aggregation.slow_frames, key_of(aggregation.slow)
    return key_of(aggregation)


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

    def budget(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Tokens for `frames` frames of `h` x `w` patches."""
        return budget(self, frames, h, w)

    def __str__(self) -> str:
        return self.name


def slow_indices(frames: int, slow_frames: int) -> list[int]:
    """Which of `frames` encoded frames the Slow pathway takes (they repeat where frames < slow_frames).

    In float32 and truncated, as the published code: numpy or integer division differ for some pairs.
    """
    return torch.linspace(0, frames, slow_frames + 1).to(torch.int32)[:-1].tolist()


@dataclass(frozen=True)
class SlowFast:
    """Slow tokens (few frames, much detail), then Fast tokens (all frames, few tokens each).

    `slow` names a pool, or is any callable (T h w D) -> (N D); `fast` is the rows and columns to which each
    frame is averaged. `slow_frames=0` or `fast=(0, 0)` leave a pathway out. Source: arXiv 2407.15841,
    section 3.2.
    """

    slow_frames: int = 10
    slow: str | Callable[[Tensor], Tensor] = "spatial_1d_max_pool"
    fast: tuple[int, int] = (4, 4)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fast", tuple(self.fast))
        if self.slow_frames < 0:
            raise SfllavaError(f"slow_frames must be 0 or more, got {self.slow_frames}")
        if len(self.fast) != 2 or min(self.fast) < 0 or (0 in self.fast and self.fast != (0, 0)):
            raise SfllavaError(
                f"fast must be two numbers of at least 1, or (0, 0) for no Fast pathway, got {self.fast}"
            )
        if isinstance(self.slow, str) and self.slow not in SLOW_POOLS:
            raise SfllavaError(f"no slow pool is called {self.slow!r}; there are {', '.join(SLOW_POOLS)}")
        if not self.slow_frames and self.fast == (0, 0):
            raise SfllavaError("slow_0frms with fast_0x0 leaves no visual tokens: keep one pathway")

    def slow_tokens(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (N D) of the Slow pathway alone."""
        check_grid(grid)
        if not self.slow_frames:
            return grid.new_zeros(0, grid.shape[-1])
        pool = Pool(self.slow) if isinstance(self.slow, str) else self.slow
        return pool(grid[slow_indices(grid.shape[0], self.slow_frames)])

    def fast_tokens(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (T * rows * columns, D) of the Fast pathway alone."""
        check_grid(grid)
        if self.fast == (0, 0):
            return grid.new_zeros(0, grid.shape[-1])
        return F.adaptive_avg_pool2d(grid.permute(0, 3, 1, 2), self.fast).permute(0, 2, 3, 1).flatten(0, 2)

    def __call__(self, grid: Tensor) -> Tensor:
        return torch.cat([self.slow_tokens(grid), self.fast_tokens(grid)])

    def budget(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Tokens for `frames` frames of `h` x `w` patches."""
        return budget(self, frames, h, w)

    def __str__(self) -> str:
        slow = self.slow if isinstance(self.slow, str) else name_of(self.slow)
        return f"slowfast-slow_{self.slow_frames}frms_{slow}-fast_{self.fast[0]}x{self.fast[1]}"
