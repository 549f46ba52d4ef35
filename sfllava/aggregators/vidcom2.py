"""VidCom2: the patches least like the rest of the video and of their frame, more of them in unusual frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.reduction import Reducer, Reduction, order_by, spread
from sfllava.aggregators.tower import features_of

_WIDTHS = tuple(2.0**k for k in range(-3, 2))
_TEMPERATURE = 0.01


@dataclass(frozen=True)
class VidCom2(Reducer):
    """The patches that differ most from the mean of the video and of their frame. Source: arXiv 2505.14454.

    With x the normalised half of the channels that vary least over the video, and c the mean of all patches, c_t that
    of frame t: g(x, c) = sum over a in {1/8, 1/4, 1/2, 1, 2} of exp(-|x - c|^2 / 2a). A frame's uniqueness is
    u_t = -mean g(x, c), its share r_t = R (1 + s_t - mean s), with s = softmax(u / 0.01) and R = tokens / patches. The
    round(r_t h w) patches of the smallest g(x, c) + g(x, c_t) stay, in order.

    Here the shares are rounded so that they sum to `tokens`. The paper's default is R = 0.25.
    """

    title: ClassVar[str] = "vidcom2"
    every_frame: ClassVar[bool] = True

    def reduce(self, grid: Any) -> Reduction:
        """Choose the patches; see the class."""
        features = features_of(grid).detach().flatten(1, 2)
        (t, n, _), device = features.shape, features.device
        x = F.normalize(_least_varying(features.float()), dim=-1)
        of_video = _kernels(x, x.mean((0, 1), keepdim=True))
        of_frame = _kernels(x, x.mean(1, keepdim=True))
        unusual = -of_video.mean(1).double()
        softmax = ((unusual - unusual.max()) / _TEMPERATURE).softmax(0)
        shares = (1 + softmax - softmax.mean()).cpu().numpy().tolist()
        counts = spread(self.tokens, [max(share, 0.0) for share in shares], [n] * t, least=1)
        order = order_by(of_video + of_frame)
        kept = torch.cat([order[i, :count].sort().values + i * n for i, count in enumerate(counts)])
        return Reduction(len(kept), torch.arange(len(kept), device=device), kept, torch.ones_like(kept).float())


def _least_varying(features: Tensor) -> Tensor:
    """Keep the half of the channels of (T N D) with the smallest variance over all patches."""
    variances = features.flatten(0, 1).var(0, unbiased=False)
    return features[..., order_by(variances)[: max(1, features.shape[-1] // 2)]]


def _kernels(x: Tensor, centre: Tensor) -> Tensor:
    squared = (x - centre).square().sum(-1)
    return torch.stack([(-squared / (2 * width)).exp() for width in _WIDTHS]).sum(0)


METHOD = Method(
    pattern=f"vidcom2-{COUNT}",
    usage="vidcom2-{TOKENS}",
    make=lambda tokens: VidCom2(int(tokens)),
    budgets={"vidcom2": Candidates(lambda tokens, frames, patches: [VidCom2(tokens)])},
    rank=14,
)
