"""The intervals of a run's scores, from the counts in its scores.json: no row is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sfllava.analysis import stats


def intervals(scores: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Return the accuracy of each setting with its interval.

    Args:
        scores: As in scores.json.

    Returns:
        Setting -> (accuracy, low, high), in percent of the questions asked so far; settings without counts by video, as
        from an earlier version or for a judge, are left out.
    """
    found = {name: estimate(score.get("right_by_video")) for name, score in scores.items()}
    return {name: (100 * e.mean, 100 * e.low, 100 * e.high) for name, e in found.items() if e is not None}


def estimate(right_by_video: Any) -> stats.Estimate | None:
    """Return the share of right answers from counts such as {"5/9": 31}: of 31 videos, 5 of 9 questions are right.

    Returns:
        The estimate, as from the rows themselves; None if there are no counts or they are not such counts.
    """
    if not isinstance(right_by_video, Mapping):
        return None
    right, asked = [], []
    for share, videos in right_by_video.items():
        one, _, other = share.partition("/")
        if not (one.isdecimal() and other.isdecimal() and type(videos) is int and 0 < videos <= 10**7):
            return None
        right += [int(one)] * videos
        asked += [int(other)] * videos
    if not asked or any(not 0 <= r <= n or n > 10**6 for r, n in zip(right, asked)) or sum(asked) > 10**7:
        return None
    pairs = np.stack([right, np.subtract(asked, right)], axis=1).ravel()
    values = np.repeat(np.tile([1.0, 0.0], len(asked)), pairs)
    return stats.proportion(values, np.repeat(np.arange(len(asked)), asked))
