"""Frame scores to spans: small examples computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sfllava.attribution.grounding.span_rule import SpanRule, frame_edges
from sfllava.types import SfllavaError

EDGES = [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("rule", "scores", "span"),
    [
        (SpanRule(1, 0.5), [0, 1, 4, 3, 1, 0], (2, 4)),
        (SpanRule(1, 0.25), [0, 1, 4, 3, 1, 0], (1, 5)),
        (SpanRule(1, 0.8), [0, 1, 4, 3, 1, 0], (2, 3)),
        # the segment with the maximum, not the longest one
        (SpanRule(1, 0.5), [3, 3, 3, 0, 4, 0], (4, 5)),
        # the first of two maxima
        (SpanRule(1, 0.5), [0, 4, 0, 0, 4, 0], (1, 2)),
        # smoothed: the mean of the neighbours; the window is cut off at the ends
        (SpanRule(3, 0.9), [0, 0, 6, 0, 0, 0], (1, 4)),
        (SpanRule(3, 0.9), [6, 0, 0, 0, 0, 0], (0, 1)),
        # a window wider than the video: every mean is over all frames
        (SpanRule(13, 1.0), [6, 0, 0, 0, 0, 3], (0, 6)),
        # scores below 0 count as 0; without a score above 0, all frames are selected
        (SpanRule(1, 0.1), [-9, -9, 1, -9, -9, -9], (2, 3)),
        (SpanRule(1, 0.5), [-1, -2, -3, -1, 0, 0], (0, 6)),
        (SpanRule(1, 0.5), [0, 0, 0, 0, 0, 7], (5, 6)),
        (SpanRule(1, 1.0), [2, 2, 2, 2, 2, 2], (0, 6)),
    ],
)
def test_spans_computed_by_hand(rule, scores, span):
    assert rule.span(scores, EDGES) == span


def test_smoothing_is_the_mean_of_the_window():
    scores = np.random.default_rng(0).normal(size=20)
    for window in (1, 3, 7):
        half = window // 2
        wanted = [max(0.0, scores[max(0, t - half) : t + half + 1].mean()) for t in range(20)]
        np.testing.assert_allclose(SpanRule(window).smooth(scores), wanted, atol=1e-12)


def test_the_interval_of_a_frame_ends_at_the_midpoints():
    # 8 fps: frames 1, 3, 5 are on screen from 1/8 to 2/8 and so on; their centres are 1.5/8, 3.5/8, 5.5/8
    np.testing.assert_allclose(frame_edges(np.array([1, 3, 5]) / 8, 8, 1.0), np.array([0, 2.5, 4.5, 8]) / 8)
    # every frame of a video: each interval is the time on screen
    np.testing.assert_allclose(frame_edges(np.arange(4) / 2, 2, 2.0), [0, 0.5, 1, 1.5, 2])
    # uneven times, instants, an annotated duration that is too short, and a single frame
    np.testing.assert_allclose(frame_edges(np.array([0, 1, 5]), None, 6), [0, 0.5, 3, 6])
    np.testing.assert_allclose(frame_edges(np.array([0, 1, 5]), None, 4), [0, 0.5, 3, 5])
    np.testing.assert_allclose(frame_edges(np.array([3.0]), 25, 10), [0, 10])
    # a clip from 20 to 30 s
    np.testing.assert_allclose(frame_edges(np.array([22, 28]), None, 30, 20.0), [20, 25, 30])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"window": 2}, "window must be an odd number of frames, such as 1, 3 or 5, got 2"),
        ({"window": 0}, "window must be an odd number"),
        ({"share": 0}, "share must be above 0 and at most 1, got 0"),
        ({"share": 1.5}, "got 1.5"),
        ({"share": float("nan")}, "got nan"),
    ],
)
def test_impossible_rules(rule, message):
    with pytest.raises(SfllavaError, match=message):
        SpanRule(**rule)
