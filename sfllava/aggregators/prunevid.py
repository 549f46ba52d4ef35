"""PruneVid before the language model: static places of similar frames become one, then patches are clustered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.density_peaks import density_peaks
from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.reduction import Reducer, Reduction
from sfllava.aggregators.tower import features_of
from sfllava.aggregators.windows import Group, merge_groups, split

_NEIGHBOURS = 7
_SEGMENTS = 0.25  # clusters of frames, as a share of the frames
_STATIC = 0.8


@dataclass(frozen=True)
class PruneVid(Reducer):
    """The outer part of PruneVid: merging over time, then over space. Source: arXiv 2412.16117.

    1. The means of the frames' patches are clustered (DPC-KNN, k = 7) into int(T / 4) clusters. A cluster keeps its
       longest run of frames; other frames, and clusters of single frames, join the longer of the runs beside them. Runs
       are the windows.
    2. s_p = mean over pairs i != j of a window's frames of cos(x_i,p, x_j,p). Where s_p > 0.8 the patches at place p
       become their mean over the window: static.
    3. The static places of a window, and the other places of each frame, are clustered (DPC-KNN, k = 7); each cluster
       becomes its mean.

    The paper keeps half of each group of step 3 that has more than 14 places. Here each group gets tokens in proportion
    to its places, so that there are exactly `tokens`; places are made static from the most similar on, as long as so
    many patches are left. What PruneVid does inside the language model is not part of this.
    """

    title: ClassVar[str] = "prunevid"

    def reduce(self, grid: Any) -> Reduction:
        """Choose windows, static places and clusters; see the class."""
        features = features_of(grid).detach().flatten(1, 2)
        windows = frame_windows(features.float().mean(1))
        scores = [_similarity(features[start:stop]) for start, stop in windows]
        groups = split(windows, scores, _STATIC, features.shape[0] * features.shape[1] - self.tokens)

        def merge(group: Group, count: int) -> tuple[Tensor, Tensor]:
            _, owner = density_peaks(group.values(features), count, _NEIGHBOURS)
            return owner, 1 / owner.bincount(minlength=count)[owner].float()

        return merge_groups(features, groups, self.tokens, merge)


def _similarity(window: Tensor) -> Tensor:
    """(W N D) -> (N) mean cosine of all pairs of different frames at each place."""
    frames = len(window)
    if frames == 1:
        return window.new_zeros(window.shape[1], dtype=torch.float32)
    # the square of the sum of unit vectors has the cosines of all pairs, and 1 for each frame with itself
    sums = F.normalize(window.float(), dim=-1).sum(0)
    return (sums.square().sum(-1) - frames) / (frames * (frames - 1))


def frame_windows(frames: Tensor) -> list[tuple[int, int]]:
    """Cluster frames (T D) and return windows (start, stop) of consecutive ones."""
    clusters = max(1, int(len(frames) * _SEGMENTS))
    return runs(refined(density_peaks(frames, clusters, _NEIGHBOURS)[1].tolist()))


def runs(labels: list[int]) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of equal labels."""
    starts = [i for i in range(len(labels)) if i == 0 or labels[i] != labels[i - 1]]
    return list(zip(starts, [*starts[1:], len(labels)]))


def refined(labels: list[int]) -> list[int]:
    """Keep the longest runs of each label, if longer than a frame; the rest joins the longer neighbour, or the left."""
    found = runs(labels)
    longest: dict[int, int] = {}
    for start, stop in found:
        longest[labels[start]] = max(longest.get(labels[start], 0), stop - start)
    kept: list[int] = list(labels)
    for start, stop in found:
        if not 1 < stop - start == longest[labels[start]]:
            kept[start:stop] = [-1] * (stop - start)
    for start, stop in runs(kept):
        if kept[start] != -1:
            continue
        left = kept[start - 1] if start else None
        right = kept[stop] if stop < len(kept) else None
        before = _length(kept[:start][::-1], left)
        after = _length(kept[stop:], right)
        label = left if left is not None and before >= after else right
        kept[start:stop] = [0 if label is None else label] * (stop - start)
    return kept


def _length(labels: list[int], label: int | None) -> int:
    """Count the leading labels that equal `label`."""
    return next((i for i, other in enumerate(labels) if other != label), len(labels))


METHOD = Method(
    pattern=f"prunevid-{COUNT}",
    usage="prunevid-{TOKENS}",
    make=lambda tokens: PruneVid(int(tokens)),
    budgets={"prunevid": Candidates(lambda tokens, frames, patches: [PruneVid(tokens)])},
    rank=16,
)
