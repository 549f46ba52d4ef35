"""VisionZip: in each frame the patches with the most attention, and the rest merged into a few by their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.reduction import Reducer, Reduction, joined, order_by, spread
from sfllava.aggregators.tower import features_of, output_of

_DOMINANT = 54 / 64


@dataclass(frozen=True)
class VisionZip(Reducer):
    """Dominant patches by the tower's attention, contextual ones by merging. Source: arXiv 2412.04467.

    Of a frame's n tokens, int(54 n / 64) are the patches with the most attention (from CLS, or the mean query), in
    order; the others are contextual. Their targets are every (m // c)-th of the m patches left, c of them; each other
    patch goes to the target whose key is most similar (cosine). A contextual token is
    x_target + mean of x over the patches that go to it.

    54 and 10 are the paper's defaults for 64 tokens an image, in the same proportion as for 128 and 192. The paper
    also keeps CLS, which is not in the grid here, and merges before the projector; here, as in its published ports to
    video models, the projected patches are merged. Frames have equal numbers of tokens, the first ones one more where
    `tokens` do not divide.
    """

    title: ClassVar[str] = "visionzip"
    every_frame: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("attention", "keys")

    def reduce(self, grid: Any) -> Reduction:
        """Choose and merge the patches of each frame; see the class."""
        t, h, w, _ = features_of(grid).shape
        attention = output_of(self, grid, "attention").flatten(1)
        keys = F.normalize(output_of(self, grid, "keys").flatten(1, 2).float(), dim=-1)
        counts = spread(self.tokens, [1.0] * t, [h * w] * t)
        parts = []
        for frame, count in enumerate(counts):
            token, patch, weight = _one_frame(attention[frame], keys[frame], count)
            parts.append((count, token, patch + frame * h * w, weight))
        return joined(parts)


def _one_frame(attention: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return token, patch and weight of the entries of one frame: attention (N), unit keys (N K)."""
    dominant = int(count * _DOMINANT)
    contextual = count - dominant
    order = order_by(attention, descending=True)
    best, rest = order[:dominant].sort().values, order[dominant:].sort().values
    targets = torch.arange(0, len(rest), max(1, len(rest) // contextual), device=rest.device)[:contextual]
    is_target = torch.zeros(len(rest), dtype=torch.bool, device=rest.device).index_fill_(0, targets, True)
    others = rest[~is_target]
    owner = (keys[others] @ keys[rest[targets]].T).argmax(1)
    shares = 1 / owner.bincount(minlength=contextual).clamp(min=1)[owner].float()
    token = torch.cat([torch.arange(count, device=rest.device), owner + dominant])
    ones = torch.ones(count, device=rest.device)
    return token, torch.cat([best, rest[targets], others]), torch.cat([ones, shares])


METHOD = Method(
    pattern=f"visionzip-{COUNT}",
    usage="visionzip-{TOKENS}",
    make=lambda tokens: VisionZip(int(tokens)),
    budgets={"visionzip": Candidates(lambda tokens, frames, patches: [VisionZip(tokens)])},
    rank=11,
)
