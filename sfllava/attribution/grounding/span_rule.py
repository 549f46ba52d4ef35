"""From a score for each sampled frame to a span in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sfllava.attribution.grounding.annotations import Span
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class SpanRule:
    """How the scores s_1 ... s_T of the sampled frames become a span.

    1. Smooth: m_t is the mean of s_u over |u - t| <= (window - 1) / 2, near the ends over the frames that there are.
    2. Clip: p_t = max(m_t, 0).
    3. Choose: the run of consecutive frames with p_t >= share * max(p) that contains the first maximum of p.
    4. The span goes from where the first of these frames begins to where the last one ends (`frame_edges`).

    Where no p_t is above 0, nothing points at a part of the video, and all frames are chosen.

    Attributes:
        window: frames in the moving average; odd.
        share: of the maximum; above 0, at most 1.
    """

    window: int = 3
    share: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 1 or self.window % 2 == 0:
            raise SfllavaError(f"window must be an odd number of frames, such as 1, 3 or 5, got {self.window!r}")
        if not 0 < self.share <= 1:
            raise SfllavaError(f"share must be above 0 and at most 1, got {self.share!r}")

    def to_dict(self) -> dict[str, float]:
        """Return the parameters by name."""
        return asdict(self)

    def smooth(self, scores: Sequence[float]) -> np.ndarray:
        """Return the smoothed and clipped scores p (T) of scores (T)."""
        values, half = np.asarray(scores, float), self.window // 2
        sums = np.concatenate([[0.0], np.cumsum(values)])
        at = np.arange(len(values))
        first, after = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
        # without smoothing, the scores themselves: a difference of sums would not be exact
        mean = values if half == 0 else (sums[after] - sums[first]) / (after - first)
        return np.maximum(mean, 0.0)

    def choose(self, scores: Sequence[float]) -> tuple[int, int]:
        """Return the first chosen frame of scores (T), and the one after the last."""
        smooth = self.smooth(scores)
        chosen = smooth >= self.share * smooth.max()
        peak = int(smooth.argmax())
        first = peak - int(np.argmin(np.append(chosen[peak::-1], False))) + 1
        after = peak + int(np.argmin(np.append(chosen[peak:], False)))
        return first, after

    def span(self, scores: Sequence[float], edges: Sequence[float]) -> Span:
        """Return the span of scores (T), in seconds, with the T + 1 edges of the frames from `frame_edges`."""
        first, after = self.choose(scores)
        return float(edges[first]), float(edges[after])


def frame_edges(pts_seconds: np.ndarray, fps: float | None, end: float, start: float = 0.0) -> np.ndarray:
    """Return where the parts of a video end for which its sampled frames stand.

    A frame is on screen from its time t for 1 / fps seconds, so that its centre is t + 1 / (2 fps). It stands for the
    part of the video up to the midpoints between its centre and those of its neighbours. The first also stands for what
    comes before it, the last for what comes after it.

    Args:
        pts_seconds: (T) when each sampled frame is shown, ascending.
        fps: frames per second of the video; None for frames that count as instants.
        end: of the video, in seconds.
        start: of the part of the video that was sampled, in seconds.

    Returns:
        (T + 1) seconds, ascending from `start`; frame t stands for edges t to t + 1.
    """
    centres = np.asarray(pts_seconds, float) + (0.5 / fps if fps else 0.0)
    middle = (centres[:-1] + centres[1:]) / 2
    # the annotated duration may be rounded down, so that the last frame is after it
    edges = np.concatenate([[start], middle, [max(end, centres[-1])]])
    return np.maximum.accumulate(edges)
