"""Similar patches of neighbouring frames merged into one token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.sources import TokenSource
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class Merged:
    """The patches of all frames, where runs of similar patches at one place become their mean.

    A run ends where a patch is least similar (cosine) to the one before it. The order is that of the runs' first
    patches. Sources: token merging, arXiv 2210.09461; over time as in DyCoke, arXiv 2411.15024.

    Attributes:
        tokens: runs to make.
    """

    tokens: int = 3680
    needs_features = True

    def __post_init__(self) -> None:
        check_counts(self, "tokens", self.tokens)

    def __call__(self, grid: Tensor) -> Tensor:
        runs = self._runs(grid).flatten()
        patches = grid.flatten(0, 2)
        lengths = runs.bincount()
        sums = patches.new_zeros(len(lengths), patches.shape[-1], dtype=torch.float32)
        return (sums.index_add_(0, runs, patches.float()) / lengths[:, None]).to(grid.dtype)

    def token_sources(self, grid: Tensor, frames: int) -> list[TokenSource]:
        """Map each token to the frames of its run, in equal shares, and to its one patch."""
        t, h, w, _ = grid.shape
        runs = self._runs(grid).flatten(1).cpu()
        counts = torch.zeros(int(runs.max()) + 1, t)
        for frame in range(t):
            counts[runs[frame], frame] = 1
        patches = torch.zeros(len(counts), h * w)
        patches[runs.flatten(), torch.arange(h * w).repeat(t)] = 1
        return [TokenSource("merged", 0, counts / counts.sum(1, keepdim=True), patches.unflatten(1, (h, w)))]

    def _runs(self, grid: Tensor) -> Tensor:
        """(T h w D) -> (T h w) the number of the run that each patch is in."""
        check_grid(grid)
        t, h, w, _ = grid.shape
        if self.tokens < h * w:
            raise SfllavaError(f"{self} needs at least the {h}x{w} = {h * w} patches of one frame")
        starts = torch.ones(t, h, w, dtype=torch.bool, device=grid.device)
        if self.tokens < t * h * w:
            similarity = F.cosine_similarity(grid[1:].float(), grid[:-1].float(), dim=-1)
            least = similarity.flatten().argsort(stable=True)[: self.tokens - h * w]
            later = torch.zeros(similarity.numel(), dtype=torch.bool, device=grid.device)
            starts[1:] = later.index_fill_(0, least, True).reshape(t - 1, h, w)
        # number the runs in the order of their first patches, then carry each number forward in time
        number = starts.flatten().cumsum(0).reshape(t, h, w) - 1
        return torch.where(starts, number, 0).cummax(0).values

    def __str__(self) -> str:
        return f"merged-{self.tokens}"


METHOD = Method(
    pattern=f"merged-{COUNT}",
    usage="merged-{TOKENS}",
    make=lambda tokens: Merged(int(tokens)),
    budgets={"merged": Candidates(lambda tokens, frames, patches: [Merged(tokens)])},
    rank=3,
)
