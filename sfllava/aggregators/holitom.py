"""HoliTom before the language model: windows that save the most patches, then attention and clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.density_peaks import density_peaks
from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.reduction import Reducer, Reduction, order_by
from sfllava.aggregators.tower import features_of, output_of
from sfllava.aggregators.windows import Group, merge_groups, split

_STATIC = 0.8
_CENTRE = 0.6
_NEIGHBOURS = 7


@dataclass(frozen=True)
class HoliTom(Reducer):
    """The outer part of HoliTom: windows over the whole video, then merging over space. Source: arXiv 2505.21334.

    1. A place p is static in a window of frames a..b where cos(x_t,p, x_t+1,p) > 0.8 for all t from a to b - 1. The
       windows are those that maximise the sum of (b - a) times their static places (dynamic programming). Static places
       become their mean over the window.
    2. The static places of a window are clustered (DPC-KNN, k = 7, at most the number of clusters); a cluster becomes
       0.6 centre + 0.4 mean of the others. Of the other places of each frame those with the most attention stay.

    The paper has 0.65 in place of 0.8 where 10 % of the patches stay, and in its defaults, as here, no part of what
    attention leaves is clustered. It keeps one share of each group, rounded; here the groups' shares sum to exactly
    `tokens`, and places are made static from the most similar on, as long as so many patches are left. What HoliTom
    does inside the language model is not part of this.
    """

    title: ClassVar[str] = "holitom"
    needs: ClassVar[tuple[str, ...]] = ("attention",)

    def reduce(self, grid: Any) -> Reduction:
        """Choose windows, static places, clusters and patches; see the class."""
        features = features_of(grid).detach().flatten(1, 2)
        attention = output_of(self, grid, "attention").flatten(1)
        similar = F.cosine_similarity(features[1:].float(), features[:-1].float(), dim=-1)
        windows = static_windows(similar > _STATIC)
        alone = torch.zeros(features.shape[1], device=features.device)
        scores = [similar[a : b - 1].amin(0) if b - a > 1 else alone for a, b in windows]
        groups = split(windows, scores, _STATIC, features.shape[:2].numel() - self.tokens)

        def merge(group: Group, count: int) -> tuple[Tensor, Tensor]:
            if group.stop - group.start > 1:
                return _clusters(group.values(features), count)
            kept = order_by(attention[group.start, group.places], descending=True)[:count].sort().values
            owner = torch.full((len(group.places),), -1, device=features.device)
            owner[kept] = torch.arange(count, device=features.device)
            return owner, torch.ones_like(owner, dtype=torch.float32)

        return merge_groups(features, groups, self.tokens, merge)


def _clusters(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cluster (M D): the cluster of each row, and its weight in the token of the cluster."""
    centres, owner = density_peaks(values, count, min(_NEIGHBOURS, count))
    others = owner.bincount(minlength=count) - 1
    weight = (1 - _CENTRE) / others.clamp(min=1)[owner].float()
    weight[centres] = torch.where(others[owner[centres]] > 0, _CENTRE, 1.0)
    return owner, weight


def static_windows(similar: Tensor) -> list[tuple[int, int]]:
    """Divide a video into windows that have the most patches to merge away.

    Args:
        similar: (T-1 N) bool, whether the patch at a place is like the one in the next frame.

    Returns:
        (start, stop) of all windows, in order; among equally good ones, the shortest last window.
    """
    frames = len(similar) + 1
    saved = torch.zeros(frames, frames, dtype=torch.long)
    for start in range(frames - 1):
        static = similar[start:].int().cummin(0).values.sum(1).cpu()
        saved[start, start + 1 :] = static * torch.arange(1, frames - start)
    best, starts = [0], [0]  # best[t]: most that the first t frames save
    for stop in range(1, frames + 1):
        options = [(best[start] + int(saved[start, stop - 1]), start) for start in range(stop)]
        most = max(value for value, _ in options)
        best.append(most)
        starts.append(max(start for value, start in options if value == most))
    windows, stop = [], frames
    while stop:
        windows.append((starts[stop], stop))
        stop = starts[stop]
    return windows[::-1]


METHOD = Method(
    pattern=f"holitom-{COUNT}",
    usage="holitom-{TOKENS}",
    make=lambda tokens: HoliTom(int(tokens)),
    budgets={"holitom": Candidates(lambda tokens, frames, patches: [HoliTom(tokens)])},
    rank=13,
)
