from __future__ import annotations

import numpy as np
import pytest

from sfllava import stats


def simulated(rng, videos, least, most, truth, alike):
    """Right or wrong, about videos of different difficulty whose share is `truth` on average."""
    sizes = rng.integers(least, most + 1, videos)
    chance = rng.beta(truth * alike, (1 - truth) * alike, videos)
    owner = np.repeat(np.arange(videos), sizes)
    return rng.random(len(owner)) < chance[owner], owner, chance


@pytest.mark.parametrize(
    ("videos", "least", "most", "truth", "alike"), [(60, 3, 12, 0.6, 4), (100, 5, 5, 0.5, 2), (150, 1, 20, 0.75, 5)]
)
def test_intervals_cover_the_truth_as_often_as_they_say(videos, least, most, truth, alike):
    """In 93 to 97 of 100 data sets; the interval that takes questions for independent does not."""
    rng = np.random.default_rng(0)
    ours = naive = 0
    for _ in range(1000):
        right, owner, _ = simulated(rng, videos, least, most, truth, alike)
        found = stats.share(right, owner)
        ours += found.low <= truth <= found.high
        mean, reach = right.mean(), 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
        naive += mean - reach <= truth <= mean + reach
    assert 930 <= ours <= 970 and naive < 850, (ours, naive)


def test_differences_cover_the_truth_too_and_find_what_they_can_detect():
    rng = np.random.default_rng(1)
    covered = found = 0
    detectable = []
    for _ in range(1000):
        one, owner, chance = simulated(rng, 80, 3, 9, 0.6, 4)
        other = rng.random(len(owner)) < chance[owner] - 0.06
        gap = stats.difference(one, other, owner)
        truth = (chance - (chance - 0.06).clip(min=0)).mean()
        covered += gap.estimate.low <= truth <= gap.estimate.high
        found += gap.p < 0.05
        detectable.append(gap.detectable)
    assert 930 <= covered <= 970, covered
    # at a true difference of 5.8 points and about 8.5 detectable ones, half are found; at the detectable, 80 of 100
    assert 0.06 < np.mean(detectable) < 0.11 and 300 < found < 650, (np.mean(detectable), found)


def test_what_is_detectable_is_found_four_times_in_five():
    rng = np.random.default_rng(2)
    gap = 0.1
    found, detectable = 0, []
    for _ in range(500):
        owner = np.repeat(np.arange(70), 6)
        other = rng.random(420) < 0.5
        one = rng.random(420) < 0.5 + gap
        test = stats.difference(one, other, owner)
        found += test.p < 0.05
        detectable.append(test.detectable)
    share = found / 500
    # a normal curve around the 80 % that belong to the detectable difference
    assert (share > 0.8) == (gap > np.mean(detectable)) or abs(share - 0.8) < 0.05, (share, np.mean(detectable))


def test_clusters_widen_an_interval():
    """40 videos of 10 equal answers each are 40 observations, not 400."""
    values = (np.arange(40) % 2).repeat(10)
    clustered = stats.share(values, np.arange(40).repeat(10))
    single = stats.share(values, np.arange(400))
    assert clustered.mean == single.mean == 0.5 and clustered.videos == 40 and single.videos == 400
    assert clustered.high - clustered.low > 2.5 * (single.high - single.low)


def test_edges():
    everything = stats.share(np.ones(30), np.arange(30))
    assert everything.mean == everything.high == 1 and 0.8 < everything.low < 0.95
    nothing = stats.share(np.zeros(30), np.arange(30))
    assert nothing.mean == nothing.low == 0 and nothing.high == pytest.approx(1 - everything.low)
    one_video = stats.share(np.array([1, 0, 1]), np.zeros(3))
    assert (one_video.low, one_video.high) == (0, 1)
    same = stats.difference(np.ones(50), np.ones(50), np.arange(50)).estimate
    assert same.mean == 0 and -0.1 < same.low < 0 < same.high < 0.1
    assert stats.difference(np.ones(50), np.zeros(50), np.arange(50)).p < 1e-9
    with pytest.raises(ValueError, match="needed values"):
        stats.share(np.array([]), np.array([]))


def test_holm():
    assert stats.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm(np.array([0.9, 0.8])).tolist() == [1, 1]
