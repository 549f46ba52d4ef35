"""Kappa and its interval against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sfllava.analysis.agreement import kappa, kappa_interval


def test_kappa_s_weights_are_squared_distances():
    # one disagreement by two of three labels weighs four times one by a single label
    far, near = np.diag([3.0, 3, 3]), np.diag([3.0, 3, 3])
    far[0, 2], near[0, 1] = 1, 1
    # 1 - observed / expected, rows (4, 3, 3); columns (3, 3, 4) and (3, 4, 3)
    expected = [(1 * (12 + 9 + 12 + 9) + 4 * (16 + 9)) / 10, (1 * (16 + 9 + 9 + 12) + 4 * (12 + 9)) / 10]
    assert kappa(np.stack([far, near])) == pytest.approx([1 - 4 / expected[0], 1 - 1 / expected[1]])


def test_kappa_s_interval_is_the_jackknife_s():
    tables = np.array([[3, 1, 0, 2], [2, 0, 1, 3], [4, 0, 0, 1], [1, 1, 1, 3.0]])
    middle, low, high = kappa_interval(tables, 2)

    def by_hand(table):  # plain Cohen's kappa: (agreement - chance) / (1 - chance)
        a, b, c, d = table
        n = table.sum()
        chance = ((a + b) * (a + c) + (c + d) * (b + d)) / n**2
        return ((a + d) / n - chance) / (1 - chance)

    logs = np.log([1 - by_hand(tables.sum(0) - table) for table in tables])
    reach = 3.182446 * np.sqrt(3 / 4 * ((logs - logs.mean()) ** 2).sum())  # t of 3 degrees of freedom
    assert middle == pytest.approx(by_hand(tables.sum(0)))
    assert 1 - low == pytest.approx(min(2, (1 - middle) * np.exp(reach)), rel=1e-6)
    assert 1 - high == pytest.approx((1 - middle) * np.exp(-reach), rel=1e-6)


def test_kappa_of_one_video_or_of_one_label():
    assert kappa_interval(np.array([[3, 1, 0, 2.0]]), 2)[1:] == (-1, 1)
    assert np.isnan(kappa_interval(np.array([[3, 0, 0, 0.0], [2, 0, 0, 0]]), 2)).all()


def test_judges_that_always_agree_may_differ_on_videos_that_were_not_seen():
    tables = np.array([[1, 0, 0, 1.0]] * 20)
    # half yes and half no: chance disagreement 0.5, of at most 1, on the share of videos that 20 may miss
    assert kappa_interval(tables, 2) == pytest.approx((1, 1 - (1 - 0.025 ** (1 / 20)) / 0.5, 1))
