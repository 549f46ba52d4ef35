"""SlowFast: a few frames in detail, then all frames coarsely (arXiv 2407.15841, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_grid, identity_key, name_of, token_count
from sfllava.aggregators.methods import COUNT_OR_ZERO, Candidates, Method
from sfllava.aggregators.pools import BUDGET_POOLS, SLOW_POOLS, Pool
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class SlowFast:
    """The Slow pathway's tokens (few frames, many tokens each), then the Fast pathway's (all frames, few tokens each).

    Attributes:
        slow_frames: frames of the Slow pathway; 0 leaves it out.
        slow: its pool, by name or as a callable (T h w D) -> (N D).
        fast: rows and columns to which the Fast pathway averages each frame; (0, 0) leaves it out.
    """

    slow_frames: int = 10
    slow: str | Callable[[Tensor], Tensor] = "spatial_1d_max_pool"
    fast: tuple[int, int] = (4, 4)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fast", tuple(self.fast))
        _check(self)

    def __call__(self, grid: Tensor) -> Tensor:
        return torch.cat([self.slow_tokens(grid), self.fast_tokens(grid)])

    def slow_tokens(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (N D): choose frames at equal distances, and pool each."""
        check_grid(grid)
        if self.slow_frames == 0:
            return grid.new_zeros(0, grid.shape[-1])
        pool = Pool(self.slow) if isinstance(self.slow, str) else self.slow
        return pool(grid[slow_indices(len(grid), self.slow_frames)])

    def fast_tokens(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (T*rows*columns D): average every frame to `fast`."""
        check_grid(grid)
        if self.fast == (0, 0):
            return grid.new_zeros(0, grid.shape[-1])
        return F.adaptive_avg_pool2d(grid.permute(0, 3, 1, 2), self.fast).permute(0, 2, 3, 1).flatten(0, 2)

    def token_parts(self, grid: Tensor) -> dict[str, Tensor]:
        """(T h w D) -> the tokens of each pathway."""
        return {"slow": self.slow_tokens(grid), "fast": self.fast_tokens(grid)}

    def prefix_key(self) -> object:
        """Return what decides the Slow tokens, with which all tokens begin."""
        return SlowFast, self.slow_frames, identity_key(self.slow)

    def detailed_frames(self, frames: int) -> list[int]:
        """Return which of `frames` frames the Slow pathway takes."""
        return slow_indices(frames, self.slow_frames) if self.slow_frames else []

    def token_count(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Count the tokens for `frames` frames of `h` x `w` patches."""
        return token_count(self, frames, h, w)

    def __str__(self) -> str:
        slow = self.slow if isinstance(self.slow, str) else name_of(self.slow)
        return f"slowfast-slow_{self.slow_frames}frms_{slow}-fast_{self.fast[0]}x{self.fast[1]}"


def named_pathways(aggregator: object) -> SlowFast | None:
    """Return a SlowFast whose pool has a name, so that controls can show it; None for any other aggregator."""
    return aggregator if isinstance(aggregator, SlowFast) and isinstance(aggregator.slow, str) else None


def slow_indices(frames: int, slow_frames: int) -> list[int]:
    """Return which of `frames` frames the Slow pathway takes; they repeat where `frames` is below `slow_frames`.

    In float32 and truncated, as the published code does it: numpy and integer division differ for some pairs.
    """
    return torch.linspace(0, frames, slow_frames + 1).to(torch.int32)[:-1].tolist()


def _check(made: SlowFast) -> None:
    if made.slow_frames < 0:
        raise SfllavaError(f"slow_frames must be 0 or more, got {made.slow_frames}")
    if len(made.fast) != 2 or min(made.fast) < 0 or (0 in made.fast and made.fast != (0, 0)):
        raise SfllavaError(f"fast must be two numbers of at least 1, or (0, 0) for no Fast pathway, got {made.fast}")
    if isinstance(made.slow, str) and made.slow not in SLOW_POOLS:
        raise SfllavaError(f"no slow pool is called {made.slow!r}; there are {', '.join(SLOW_POOLS)}")
    if made.slow_frames == 0 and made.fast == (0, 0):
        raise SfllavaError("slow_0frms with fast_0x0 leaves no visual tokens: keep one pathway")


_FAST = ((1, 1), (1, 2), (2, 2), (2, 4), (3, 6), (4, 4), (6, 6), (8, 8))
_SLOW_SHARE = 2880 / 3680  # of the tokens, in the paper's default


def _share_distance(made: SlowFast, tokens: int, frames: int) -> float:
    slow_share = 1 - frames * made.fast[0] * made.fast[1] / tokens
    return abs(slow_share - _SLOW_SHARE)


METHOD = Method(
    pattern=rf"slowfast-slow_{COUNT_OR_ZERO}frms_([a-z0-9_]+)-fast_{COUNT_OR_ZERO}x{COUNT_OR_ZERO}",
    usage="slowfast-slow_{FRAMES}frms_{POOL}-fast_{ROWS}x{COLUMNS}",
    make=lambda frames, pool, rows, columns: SlowFast(int(frames), pool, (int(rows), int(columns))),
    budgets={
        "slowfast": Candidates(
            lambda tokens, frames, patches: [
                SlowFast(slow, pool, fast) for slow in range(1, frames + 1) for pool in BUDGET_POOLS for fast in _FAST
            ],
            _share_distance,  # type: ignore[arg-type]  # its candidates are SlowFast
        ),
        "slow only": Candidates(
            lambda tokens, frames, patches: [
                SlowFast(slow, pool, (0, 0)) for slow in range(1, frames + 1) for pool in BUDGET_POOLS
            ]
        ),
        "fast only": Candidates(
            lambda tokens, frames, patches: [
                SlowFast(0, fast=(rows, columns)) for rows in range(1, 25) for columns in (rows, 2 * rows)
            ]
        ),
    },
    rank=0,
)
