"""Where each visual token came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sfllava.aggregators.base import name_of
from sfllava.aggregators.keyframes import Keyframes, keyframes
from sfllava.aggregators.merged import Merged
from sfllava.aggregators.pools import Pool
from sfllava.aggregators.slowfast import SlowFast
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class TokenSource:
    """A run of visual tokens and where they are from: each token's shares of frames (N T) and of patches (N h*w)."""

    name: str
    first: int
    frames: Tensor
    patches: Tensor

    @property
    def tokens(self) -> slice:
        return slice(self.first, self.first + len(self.frames))

    def heat(self, weights: Tensor) -> Tensor:
        """(N) weights of this pathway's tokens -> (T h*w), of the same sum."""
        return (self.frames * weights[:, None]).T @ self.patches


def token_sources(aggregation: Any, grid: Tensor) -> list[TokenSource]:
    """Where each visual token of a patch grid (T h w D) is from: the inverse of the pools.

    A pool is run over marks in place of features, one channel a frame and one a patch: what it pools together it
    then tells by itself, a pool of your own too, as long as it averages or takes maxima over some patches of some
    frames. Raises SfllavaError for an aggregation that tiles frames or merges by likeness.
    """
    t, h, w, _ = grid.shape
    marks = torch.cat(
        [
            torch.eye(t)[:, None, None].expand(t, h, w, t),
            torch.eye(h * w).reshape(1, h, w, h * w).expand(t, h, w, h * w),
        ],
        dim=-1,
    )
    runs: list[tuple[str, Tensor]]
    if isinstance(aggregation, SlowFast):
        runs = [("slow", aggregation.slow_tokens(marks)), ("fast", aggregation.fast_tokens(marks))]
    elif isinstance(aggregation, Keyframes):
        chosen = keyframes(grid.flatten(1, 2).mean(1), aggregation.keyframes)
        runs = [("key frames", Pool(aggregation.pool)(marks[chosen]))]
    elif callable(aggregation) and not (isinstance(aggregation, Merged) or hasattr(aggregation, "make_images")):
        marked: Any = aggregation(marks)
        runs = [("all frames", marked)]
    else:
        raise SfllavaError(
            f"{name_of(aggregation)}: its tokens cannot be mapped back on the frames; SlowFast, plain pools and key "
            "frames can"
        )
    found, first = [], 0
    for name, marked in runs:
        frames, patches = (part / part.sum(1, keepdim=True) for part in (marked[:, :t], marked[:, t:]))
        if len(marked):
            found.append(TokenSource(name, first, frames, patches))
        first += len(marked)
    return found
