"""SlowFast: a few frames in detail, then all frames coarsely (arXiv 2407.15841, section 3.2).

Shapes: T frames of h rows and w columns of patches, each patch with D features; N visual tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_grid, identity_key, name_of, token_count
from sfllava.aggregators.methods import COUNT_OR_ZERO, Candidates, Method
from sfllava.aggregators.pools import BUDGET_POOLS, POOL_NAMES, SLOW_POOLS, Pool, is_slow_pool
from sfllava.catalogue import unknown_name
from sfllava.types import SfllavaError

Order = Literal["slow-first", "fast-first"]
ORDERS: tuple[Order, ...] = get_args(Order)
_FAST_FIRST = "-fast_first"  # the end of the name


@dataclass(frozen=True)
class SlowFast:
    """Concatenate the tokens of the Slow pathway (few frames, many tokens each) and the Fast one (all frames, few).

    Attributes:
        slow_frames: number of frames of the Slow pathway; 0 leaves it out.
        slow: the pool of the Slow pathway: a name in `POOL_NAMES`, or a callable (slow_frames h w D) -> (N D).
        fast: (rows, columns) of the grid to which the Fast pathway average-pools each frame; (0, 0) leaves it out.
        slow_at: positions in the patch grid of the Slow pathway's frames, where they were chosen for a question; None
            for `slow_frames` evenly spaced ones.
        fast_at: positions of the Fast pathway's frames; None for all.
        order: which pathway's tokens come first: "slow-first", as published, or "fast-first". With "fast-first",
            questions with different Slow frames share the prefix of the Fast pathway.
    """

    slow_frames: int = 10
    slow: str | Callable[[Tensor], Tensor] = "spatial_1d_max_pool"
    fast: tuple[int, int] = (4, 4)
    slow_at: tuple[int, ...] | None = None
    fast_at: tuple[int, ...] | None = None
    order: Order = "slow-first"

    def __post_init__(self) -> None:
        object.__setattr__(self, "fast", tuple(self.fast))
        _check(self)

    def __call__(self, grid: Tensor) -> Tensor:
        return torch.cat(list(self.token_parts(grid).values()))

    def slow_tokens(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (N D): choose `slow_frames` evenly spaced frames, or those of `slow_at`, and pool them."""
        check_grid(grid)
        if self.slow_frames == 0:
            return grid.new_zeros(0, grid.shape[-1])
        pool = Pool(self.slow) if isinstance(self.slow, str) else self.slow
        return pool(grid[self.detailed_frames(len(grid))])

    def fast_tokens(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (T*rows*columns D): average-pool every frame, or those of `fast_at`, to `fast`."""
        check_grid(grid)
        if self.fast == (0, 0):
            return grid.new_zeros(0, grid.shape[-1])
        grid = grid if self.fast_at is None else grid[list(self.fast_at)]
        return F.adaptive_avg_pool2d(grid.permute(0, 3, 1, 2), self.fast).permute(0, 2, 3, 1).flatten(0, 2)

    def token_parts(self, grid: Tensor) -> dict[str, Tensor]:
        """(T h w D) -> the tokens of each pathway, in their order."""
        slow, fast = self.slow_tokens(grid), self.fast_tokens(grid)
        return {"slow": slow, "fast": fast} if self.order == "slow-first" else {"fast": fast, "slow": slow}

    def prefix_key(self) -> object:
        """Return a key of the pathway that comes first: equal keys mean equal tokens of it for the same frames."""
        if self.order == "fast-first":
            return SlowFast, self.order, self.fast, self.fast_at
        return SlowFast, self.slow_frames, identity_key(self.slow), self.slow_at

    def detailed_frames(self, frames: int) -> list[int]:
        """Return the indices of the frames, out of `frames`, that the Slow pathway takes."""
        if self.slow_at is not None:
            return list(self.slow_at)
        return slow_indices(frames, self.slow_frames) if self.slow_frames else []

    def with_frames(self, detailed: Sequence[int], others: Sequence[int]) -> SlowFast:
        """Return a SlowFast whose pathways take these positions of the patch grid: Slow `detailed`, Fast `others`."""
        return replace(self, slow_at=tuple(detailed), fast_at=tuple(others))

    def token_count(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Count the tokens for `frames` frames of `h` x `w` patches."""
        return token_count(self, frames, h, w)

    def __str__(self) -> str:
        slow = self.slow if isinstance(self.slow, str) else name_of(self.slow)
        order = _FAST_FIRST if self.order == "fast-first" else ""
        return f"slowfast-slow_{self.slow_frames}frms_{slow}-fast_{self.fast[0]}x{self.fast[1]}{order}"


def named_pathways(aggregator: object) -> SlowFast | None:
    """Return the aggregator if it is a SlowFast whose pool has a name, which controls can show; otherwise None."""
    return aggregator if isinstance(aggregator, SlowFast) and aggregator.slow in SLOW_POOLS else None


def slow_indices(frames: int, slow_frames: int) -> list[int]:
    """Return the indices of the frames, out of `frames`, that the Slow pathway takes.

    Indices repeat where `frames` is below `slow_frames`. The published code computes them in float32 and truncates, and
    so does this function: float64 and integer division give other indices for some pairs of arguments.
    """
    return torch.linspace(0, frames, slow_frames + 1).to(torch.int32)[:-1].tolist()


def _check(config: SlowFast) -> None:
    if config.slow_frames < 0:
        raise SfllavaError(f"slow_frames must be 0 or more, got {config.slow_frames}")
    if len(config.fast) != 2 or min(config.fast) < 0 or (0 in config.fast and config.fast != (0, 0)):
        raise SfllavaError(f"fast must be two numbers of at least 1, or (0, 0) for no Fast pathway, got {config.fast}")
    if config.order not in ORDERS:
        raise SfllavaError(f"order must be {' or '.join(ORDERS)}, got {config.order!r}")
    if isinstance(config.slow, str) and not is_slow_pool(config.slow):
        raise SfllavaError(unknown_name("slow pool", config.slow, POOL_NAMES))
    if config.slow_frames == 0 and config.fast == (0, 0):
        raise SfllavaError(
            "slow_frames=0 (slow_0frms) with fast=(0, 0) (fast_0x0) leaves no visual tokens: keep one pathway"
        )


_FAST_GRIDS = ((1, 1), (1, 2), (2, 2), (2, 4), (3, 6), (4, 4), (6, 6), (8, 8))  # tried for a token budget
_SLOW_SHARE = 2880 / 3680  # Slow tokens / all tokens in the paper's default: 10 frames of 288, and 50 frames of 16


def _slow_share_distance(candidate: SlowFast, tokens: int, frames: int) -> float:
    slow_share = 1 - frames * candidate.fast[0] * candidate.fast[1] / tokens
    return abs(slow_share - _SLOW_SHARE)


METHOD = Method(
    pattern=rf"slowfast-slow_{COUNT_OR_ZERO}frms_([a-z0-9_]+)-fast_{COUNT_OR_ZERO}x{COUNT_OR_ZERO}({_FAST_FIRST})?",
    usage=f"slowfast-slow_{{FRAMES}}frms_{{POOL}}-fast_{{ROWS}}x{{COLUMNS}}[{_FAST_FIRST}]",
    make=lambda frames, pool, rows, columns, fast_first: SlowFast(
        int(frames), pool, (int(rows), int(columns)), order=ORDERS[bool(fast_first)]
    ),
    budgets={
        "slowfast": Candidates(
            lambda tokens, frames, patches: [
                SlowFast(slow, pool, fast)
                for slow in range(1, frames + 1)
                for pool in BUDGET_POOLS
                for fast in _FAST_GRIDS
            ],
            _slow_share_distance,  # type: ignore[arg-type]  # all candidates here are SlowFast
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
