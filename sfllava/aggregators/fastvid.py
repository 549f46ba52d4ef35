"""FastVID: segments of similar frames; in each, patches with attention, and the others merged by density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.density_peaks import peak_scores, squared_distances
from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.reduction import Reducer, Reduction, joined, order_by, spread
from sfllava.aggregators.tower import features_of, output_of

_SEGMENTS, _SIMILAR = 8, 0.9
_CONTEXT, _ANCHOR_STEP, _ANCHOR_WEIGHT, _NEIGHBOURS = 0.4, 4, 0.6, 4


@dataclass(frozen=True)
class FastVID(Reducer):
    """Dynamic segments, salient patches by attention, others merged by density. Source: arXiv 2503.11187.

    1. With f_t the mean patch of frame t, the video is cut between t and t + 1 where cos(f_t, f_t+1) < 0.9, and at the
       7 smallest ones.
    2. Of a frame's n tokens, n - int(0.4 n) are the patches with the most attention. The others are context.
    3. In a segment every 4th frame, counted from its last, is an anchor frame. These divide the segment's context
       tokens; their anchors are the patches, of those not salient, of the highest DPC-KNN score (k = 4) in their frame.
       For each anchor frame, every patch of the segment that is not salient goes to the most similar anchor (cosine),
       and the token is b x_anchor + (1 - b) mean of x over the m patches that go to it, b = max(1 / (m + 1), 0.6).

    The tokens are in the order of patches and anchors. The paper keeps int(n) tokens of each frame; here the frames'
    numbers sum to exactly `tokens`. Anchors that do not fit into an anchor frame become salient patches of the other
    frames. The paper has the pooling head of the tower give f_t and the attention; LLaVA checkpoints have no such head,
    so that f_t is the mean patch, and attention that of CLS or the mean query.
    """

    title: ClassVar[str] = "fastvid"
    every_frame: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("attention",)

    def reduce(self, grid: Any) -> Reduction:
        """Choose segments, salient patches and anchors, and merge; see the class."""
        features = features_of(grid).detach().flatten(1, 2)
        attention = output_of(self, grid, "attention").flatten(1)
        t, n, _ = features.shape
        wanted = spread(self.tokens, [1.0] * t, [n] * t)
        salient = [count - int(count * _CONTEXT) for count in wanted]
        parts = []
        for start, stop in segments(features.float().mean(1)):
            anchors = _anchors(wanted[start:stop], salient[start:stop], n)
            parts += _segment(features[start:stop], attention[start:stop], *anchors, start * n)
        found = joined(parts)
        return _in_order(found)


def segments(frames: Tensor) -> list[tuple[int, int]]:
    """(T D) -> (start, stop) of the segments."""
    x = F.normalize(frames, dim=-1)
    similarity = (x[1:] * x[:-1]).sum(-1)
    cuts = {*order_by(similarity)[: _SEGMENTS - 1].tolist(), *(similarity < _SIMILAR).nonzero()[:, 0].tolist()}
    stops = [*(cut + 1 for cut in sorted(cuts)), len(frames)]
    return list(zip([0, *stops], stops))


def _anchors(wanted: list[int], salient: list[int], n: int) -> tuple[list[int], list[int]]:
    """Return for each frame of a segment its numbers of salient patches and of anchors."""
    frames, context = len(wanted), sum(wanted) - sum(salient)
    is_anchor = [(frames - 1 - i) % _ANCHOR_STEP == 0 for i in range(frames)]
    room = [n - count if anchor else 0 for count, anchor in zip(salient, is_anchor)]
    counts = spread(context, [1.0 if anchor else 0.0 for anchor in is_anchor], room)
    rest = context - sum(counts)
    if rest:
        free = [0 if anchor else n - count for count, anchor in zip(salient, is_anchor)]
        salient = [count + more for count, more in zip(salient, spread(rest, [float(f > 0) for f in free], free))]
    return salient, counts


Part = tuple[int, Tensor, Tensor, Tensor]


def _segment(features: Tensor, attention: Tensor, salient: list[int], anchors: list[int], first: int) -> list[Part]:
    """Reduce a segment (W N D), whose first patch is the video's patch `first`: salient patches, then anchors."""
    n, device = features.shape[1], features.device
    order = order_by(attention, descending=True)
    kept = torch.cat([order[i, :count] + i * n for i, count in enumerate(salient)])
    left = torch.ones(features.shape[:2], dtype=torch.bool, device=device).flatten().index_fill_(0, kept, False)
    pool = left.nonzero()[:, 0]
    parts = [(len(kept), torch.arange(len(kept), device=device), kept + first, torch.ones(len(kept), device=device))]
    values = F.normalize(features.flatten(0, 1)[pool].float(), dim=-1)
    for frame, count in enumerate(anchors):
        if not count:
            continue
        own = (pool // n == frame).nonzero()[:, 0]
        scores = peak_scores(squared_distances(features.flatten(0, 1)[pool[own]]), _NEIGHBOURS)
        chosen = own[order_by(scores, descending=True)[:count]]
        owner = (values @ values[chosen].T).argmax(1)
        members = owner.bincount(minlength=count)
        anchor = (1 / (members + 1)).clamp(min=_ANCHOR_WEIGHT)
        anchor = torch.where(members > 0, anchor, 1.0)  # all that are equal to an anchor may go to an earlier one
        shares = ((1 - anchor) / members.clamp(min=1))[owner]
        token = torch.cat([torch.arange(count, device=device), owner])
        patch = torch.cat([pool[chosen], pool]) + first
        parts.append((count, token, patch, torch.cat([anchor, shares])))
    return parts


def _in_order(found: Reduction) -> Reduction:
    """Number the tokens in the order of their first entries' patches: the patch itself, or its anchor."""
    firsts = torch.full((found.count,), len(found.token), device=found.token.device)
    firsts = firsts.scatter_reduce(0, found.token, torch.arange(len(found.token), device=found.token.device), "amin")
    rank = order_by(order_by(found.patch[firsts]))
    return Reduction(found.count, rank[found.token], found.patch, found.weight)


METHOD = Method(
    pattern=f"fastvid-{COUNT}",
    usage="fastvid-{TOKENS}",
    make=lambda tokens: FastVID(int(tokens)),
    budgets={"fastvid": Candidates(lambda tokens, frames, patches: [FastVID(tokens)])},
    rank=12,
)
