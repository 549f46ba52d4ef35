"""Similar patches of neighbouring frames merged into one token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class Merged:
    """All frames, of which runs of alike patches at one place become their mean, until `tokens` are left.

    The cuts between runs are where a patch is least like (cosine) the one before it. Tokens stand in the order of
    the runs' first patches. Source: token merging, arXiv 2210.09461; over time as in DyCoke, arXiv 2411.15024.
    """

    tokens: int = 3680

    def __post_init__(self) -> None:
        check_counts(self, "tokens", self.tokens)

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        t, h, w, _ = grid.shape
        if self.tokens < h * w:
            raise SfllavaError(f"{self} needs at least the {h}x{w} = {h * w} patches of one frame")
        patches = grid.flatten(1, 2)
        new = torch.ones(t, h * w, dtype=torch.bool, device=grid.device)
        if self.tokens < t * h * w:
            alike = F.cosine_similarity(patches[1:].float(), patches[:-1].float(), dim=-1).flatten()
            least = alike.argsort(stable=True)[: self.tokens - h * w]
            new[1:] = torch.zeros_like(alike, dtype=torch.bool).index_fill_(0, least, True).unflatten(0, (t - 1, h * w))
        # number the runs in the order of their first patches, and carry the number along each place
        first = new.flatten().cumsum(0).unflatten(0, new.shape) - 1
        runs = torch.where(new, first, 0).cummax(0).values.flatten()
        sums = patches.new_zeros(int(new.sum()), patches.shape[-1], dtype=torch.float32)
        sums.index_add_(0, runs, patches.flatten(0, 1).float())
        return (sums / runs.bincount()[:, None]).to(grid.dtype)

    def __str__(self) -> str:
        return f"merged-{self.tokens}"
