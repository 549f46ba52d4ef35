"""DyTo: key frames by hierarchical clustering over time, each merged by bipartite matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.reduction import Reducer, Reduction, joined, order_by, spread
from sfllava.aggregators.tower import features_of

_FEW, _FRAMES, _MOST = 6, 12, 25
_HEADS = 16


@dataclass(frozen=True)
class DyTo(Reducer):
    """Key frames by temporal clustering, patches by bipartite merging. Source: arXiv 2411.14401.

    1. The frames' mean patches f are clustered (`temporal_partitions`); the second finest partition is used. Of at most
       6 clusters the first 12 // clusters frames each are key frames, of more clusters the middle frame each; of more
       than 25 key frames 25 at equal distances stay.
    2. A key frame's patches are merged to its share of the tokens, in rounds that at most halve them: the first half of
       the patches are matched to the most similar ones of the second half (cosine of the mean over 16 heads of the
       channels), and the r best matches merged. A token is the element-wise maximum of its patches. What is not merged
       comes in the order of its similarity, then the second half.

    Rules and defaults are those of the released code, whose merging takes the maximum. It clusters CLS, which is not in
    the grid here: f is the mean patch. Key frames have equal numbers of tokens, the first ones one more, so that there
    are exactly `tokens`; frames farthest in time from the key frames join them where these have too few patches.
    """

    title: ClassVar[str] = "dyto"

    def reduce(self, grid: Any) -> Reduction:
        """Choose key frames and merge the patches of each; see the class."""
        features = features_of(grid).detach().flatten(1, 2)
        t, n, _ = features.shape
        chosen = key_frames(temporal_partitions(features.float().mean(1)))
        if len(chosen) > self.tokens:
            chosen = _equally_spaced(chosen, self.tokens)
        while len(chosen) * n < self.tokens:
            gaps = [min(abs(frame - other) for other in chosen) for frame in range(t)]
            chosen = sorted([*chosen, gaps.index(max(gaps))])
        parts = []
        for frame, count in zip(chosen, spread(self.tokens, [1.0] * len(chosen), [n] * len(chosen))):
            token = merged(features[frame].float(), count)
            patch = torch.arange(n, device=token.device) + frame * n
            parts.append((count, token, patch, torch.ones_like(token)))
        return joined(parts, maximum=True)


def temporal_partitions(frames: Tensor) -> list[list[int]]:
    """Cluster frames (T D) by first neighbours in features and time, finest partition first.

    Two clusters i, j are as far apart as (1 - cos(f_i, f_j)) |t_i - t_j|, with f and t the means over their frames.
    Each is linked to its nearest one; linked ones become a cluster of the next partition, until there is one cluster or
    no fewer than before. Sources: FINCH, arXiv 1902.11266; with time, arXiv 2103.11264.
    """
    labels, found = list(range(len(frames))), []
    times = torch.arange(1, len(frames) + 1, device=frames.device, dtype=torch.float64) / len(frames)
    values = frames.double()
    while True:
        owner = torch.tensor(labels, device=frames.device)
        counts = owner.bincount().double()
        means = torch.zeros(len(counts), values.shape[1], device=frames.device, dtype=torch.float64)
        means = F.normalize(means.index_add_(0, owner, values) / counts[:, None], dim=-1)
        when = torch.zeros_like(counts).index_add_(0, owner, times) / counts
        if len(counts) == 1:
            return found or [labels]
        far = ((1 - means @ means.T).clamp(min=0).round(decimals=12)) * (when[:, None] - when[None]).abs()
        nearest = far.fill_diagonal_(torch.inf).argmin(1).tolist()
        linked = _connected(nearest)
        new = [linked[label] for label in labels]
        if found and (max(linked) == 0 or max(linked) + 1 == len(counts)):
            return found
        found.append(new)
        if found[1:] and len(counts) - max(linked) - 1 == 1:  # as in the published code: one fewer is the last
            return found
        labels = new


def _connected(nearest: list[int]) -> list[int]:
    """Number the connected groups of links i - nearest[i], in the order of their first members."""
    group = list(range(len(nearest)))

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    for i, other in enumerate(nearest):
        one, two = sorted((root(i), root(other)))
        group[two] = one
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(nearest))]


def key_frames(partitions: list[list[int]]) -> list[int]:
    """Choose frames of the second finest partition, in order."""
    labels = partitions[min(1, len(partitions) - 1)]
    clusters = [[i for i, other in enumerate(labels) if other == label] for label in sorted(set(labels))]
    if len(clusters) <= _FEW:
        return sorted(i for members in clusters for i in members[: _FRAMES // len(clusters)])
    chosen = sorted(members[len(members) // 2 if len(members) > 2 else -1] for members in clusters)
    return _equally_spaced(chosen, _MOST) if len(chosen) > _MOST else chosen


def _equally_spaced(values: list[int], n: int) -> list[int]:
    return [values[i * (len(values) - 1) // max(n - 1, 1)] for i in range(n)]


def merged(patches: Tensor, count: int) -> Tensor:
    """Merge (N D) to `count` tokens: (N) the token of each patch."""
    owner = torch.arange(len(patches), device=patches.device)
    while len(patches) > count:
        half = len(patches) // 2
        metric = patches
        if patches.shape[1] % _HEADS == 0:
            metric = patches.unflatten(1, (_HEADS, -1)).mean(1)
        metric = F.normalize(metric, dim=-1)
        best, match = (metric[:half] @ metric[half:].T).max(1)
        order, r = order_by(best, descending=True), min(len(patches) - count, half)
        place = torch.empty(len(patches), dtype=torch.long, device=patches.device)
        place[order[r:]] = torch.arange(half - r, device=patches.device)
        place[half:] = torch.arange(half - r, len(patches) - r, device=patches.device)
        place[order[:r]] = place[half + match[order[:r]]]
        new = patches.new_full((len(patches) - r, patches.shape[1]), -torch.inf)
        patches = new.scatter_reduce(0, place[:, None].expand_as(patches), patches, "amax")
        owner = place[owner]
    return owner


METHOD = Method(
    pattern=f"dyto-{COUNT}",
    usage="dyto-{TOKENS}",
    make=lambda tokens: DyTo(int(tokens)),
    budgets={"dyto": Candidates(lambda tokens, frames, patches: [DyTo(tokens)])},
    rank=15,
)
