"""The SlowFast aggregator: few frames in detail, then all frames coarsely (arXiv 2407.15841, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_grid, identity_key, name_of, token_count
from sfllava.aggregators.pools import SLOW_POOLS, Pool
from sfllava.types import SfllavaError


def prefix_key(aggregation: object) -> object:
    """A key of what the tokens begin with: aggregations of one front begin with the same tokens of the same frames."""
    if isinstance(aggregation, SlowFast):
        return aggregation.slow_frames, identity_key(aggregation.slow)
    return identity_key(aggregation)


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

    def token_count(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Tokens for `frames` frames of `h` x `w` patches."""
        return token_count(self, frames, h, w)

    def __str__(self) -> str:
        slow = self.slow if isinstance(self.slow, str) else name_of(self.slow)
        return f"slowfast-slow_{self.slow_frames}frms_{slow}-fast_{self.fast[0]}x{self.fast[1]}"
