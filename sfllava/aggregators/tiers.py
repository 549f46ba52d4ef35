"""Fewer patches for frames of lower rank, as Q-Frame's resolutions (arXiv 2506.22139)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid, token_count
from sfllava.aggregators.methods import Method
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class Tiers:
    """All patches of the best frames, half the rows and columns of the next ones, a quarter of those after them.

    Frames of tier k = 0, 1, ... are average-pooled to (h / 2^k, w / 2^k) tokens, rounded down but at least 1. Tokens
    are in the order of time. Q-Frame gives the language model images of 1/2, 1/4 and 1/8 of the resolution; here all
    frames are encoded at one resolution, and the tiers have the same sizes relative to one another.

    Attributes:
        counts: frames of each tier, the best first; further frames are left out.
        tier_frames: positions in the patch grid of the frames of each tier, where they were ranked for a question; None
            for evenly spaced ones.
    """

    counts: tuple[int, ...] = (4, 8, 32)
    tier_frames: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(self.counts))
        if not self.counts:
            raise SfllavaError("Tiers: counts needs at least one number of frames")
        check_counts(self, "counts", *self.counts)

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        _, h, w, _ = grid.shape
        tokens: dict[int, Tensor] = {}
        for k, frames in enumerate(self._frames(len(grid))):
            size = max(1, h >> k), max(1, w >> k)
            pooled = F.adaptive_avg_pool2d(grid[frames].permute(0, 3, 1, 2), size).permute(0, 2, 3, 1).flatten(1, 2)
            tokens |= zip(frames, pooled)
        return torch.cat([tokens[frame] for frame in sorted(tokens)])

    def detailed_frames(self, frames: int) -> list[int]:
        """Return the indices of the frames, out of `frames`, of the first tier."""
        return self._frames(frames)[0]

    def token_count(self, frames: int, h: int = 24, w: int = 24) -> int:
        """Count the tokens for `frames` frames of `h` x `w` patches."""
        return token_count(self, frames, h, w)

    def with_tiers(self, tiers: Sequence[Sequence[int]]) -> Tiers:
        """Return Tiers that take these positions of the patch grid."""
        return replace(self, tier_frames=tuple(map(tuple, tiers)))

    def _frames(self, total: int) -> list[list[int]]:
        if self.tier_frames is not None:
            return [list(frames) for frames in self.tier_frames]
        tiers, free = [], list(range(total))
        for count in self.counts:
            n = min(count, len(free))
            tiers.append([free[(2 * i + 1) * len(free) // (2 * n)] for i in range(n)])
            free = [frame for frame in free if frame not in tiers[-1]]
        return tiers

    def __str__(self) -> str:
        return f"tiers-{'_'.join(map(str, self.counts))}"


METHOD = Method(
    pattern=r"tiers-([1-9]\d{0,5}(?:_[1-9]\d{0,5})*)",
    usage="tiers-{FRAMES}_{FRAMES}_...",
    make=lambda counts: Tiers(tuple(map(int, counts.split("_")))),
)
