"""From a score for each sampled frame to a span in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sfllava.attribution.grounding.annotations import Span
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class SpanRule:
    """The rule that turns the scores s_1 ... s_T of the sampled frames into a span.

    1. Smooth: m_t is the mean of s_u over |u - t| <= (window - 1) / 2; near the ends, the window is cut off.
    2. Clip: p_t = max(m_t, 0).
    3. Select: the segment of consecutive frames with p_t >= share * max(p) that contains the first maximum of p.
    4. The span starts where the first of these frames starts and ends where the last one ends (`frame_edges`).

    If no p_t is above 0, no part of the video stands out, and all frames are selected.

    Attributes:
        window: number of frames in the moving average; odd.
        share: the threshold as a fraction of the maximum; above 0, at most 1.
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
        # without smoothing, use the scores themselves: a difference of cumulative sums would not be exact
        mean = values if half == 0 else (sums[after] - sums[first]) / (after - first)
        return np.maximum(mean, 0.0)

    def choose(self, scores: Sequence[float]) -> tuple[int, int]:
        """Return the first selected frame of scores (T), and the frame after the last selected one."""
        smooth = self.smooth(scores)
        chosen = smooth >= self.share * smooth.max()
        peak = int(smooth.argmax())
        first = peak - int(np.argmin(np.append(chosen[peak::-1], False))) + 1
        after = peak + int(np.argmin(np.append(chosen[peak:], False)))
        return first, after

    def span(self, scores: Sequence[float], edges: Sequence[float]) -> Span:
        """Return the span in seconds of scores (T), given the edges (T + 1) of the frames from `frame_edges`."""
        first, after = self.choose(scores)
        return float(edges[first]), float(edges[after])


def frame_edges(pts_seconds: np.ndarray, fps: float | None, end: float, start: float = 0.0) -> np.ndarray:
    """Divide a video into one interval per sampled frame, and return the edges of these intervals.

    A frame is on screen for 1 / fps seconds from its time t, so its centre is t + 1 / (2 fps). Its interval extends to
    the midpoints between its centre and the centres of its neighbours. The first interval begins at the start of the
    video, and the last one ends at the end of the video.

    Args:
        pts_seconds: (T) when each sampled frame is shown, ascending.
        fps: frames per second of the video; None treats each frame as an instant.
        end: the end of the video, in seconds.
        start: the start of the part of the video that was sampled, in seconds.

    Returns:
        (T + 1) seconds, ascending from `start`; the interval of frame t is from edge t to edge t + 1.
    """
    centres = np.asarray(pts_seconds, float) + (0.5 / fps if fps else 0.0)
    middle = (centres[:-1] + centres[1:]) / 2
    # an annotated duration that was rounded down may be before the last frame
    edges = np.concatenate([[start], middle, [max(end, centres[-1])]])
    return np.maximum.accumulate(edges)
