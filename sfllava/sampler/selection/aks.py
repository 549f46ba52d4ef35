"""AKS: adaptive keyframe sampling (arXiv 2502.21271, rule read in copies of its public frame_select.py).

The scores are scaled to 0..1. A segment, at first the whole video, is kept if mean(its n highest scores) - mean(all its
scores) > threshold; else it is halved, down to `depth` halvings. A kept segment of d halvings gives its int(n / 2^d)
best frames. Where n is no power of two, or a segment has too few frames, there are fewer than n frames in all.

The published depth is 5, which leaves none of fewer than 32 frames where all segments are halved to the end. Here
segments are not halved further than to one frame each: 2^d <= n. From 32 frames on the rule is the published one.
"""

from __future__ import annotations

import numpy as np

from sfllava.sampler.selection.selectors import Selector, best, min_max


def choose(scores: np.ndarray, n: int, seed: int = 0, threshold: float = 0.8, depth: float = 5) -> np.ndarray:
    """Return at most n positions in the order of time."""
    deepest = min(int(depth), n.bit_length() - 1)
    return np.array(_choose(min_max(scores), 0, n, threshold, 0, deepest), np.int64)


def _choose(scores: np.ndarray, first: int, n: int, threshold: float, depth: int, deepest: int) -> list[int]:
    """Return the chosen positions of a segment whose first frame is `first`."""
    rise = scores[best(scores, n)].mean() - scores.mean()
    if rise > threshold or depth >= deepest or len(scores) < 2:
        return (first + best(scores, n >> depth)).tolist()
    half = len(scores) // 2
    return _choose(scores[:half], first, n, threshold, depth + 1, deepest) + _choose(
        scores[half:], first + half, n, threshold, depth + 1, deepest
    )


SELECTOR = Selector(
    choose, "the best of segments, which are halved until one has a peak (AKS)", {"threshold": 0.8, "depth": 5}
)
