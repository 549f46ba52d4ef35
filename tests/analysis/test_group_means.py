"""The mean of group means: its interval, and paired differences of it."""

from __future__ import annotations

import numpy as np
import pytest

from sfllava.analysis import stats

TASKS = (0.8, 0.6, 0.5, 0.3, 0.4, 0.7, 0.9)


def by_task(rng, counts, questions, shares=TASKS):
    """Right or wrong, groups and videos: each group has videos of its own, as MLVU's tasks do."""
    owner = np.arange(sum(counts)).repeat(rng.integers(questions[0], questions[1] + 1, sum(counts)))
    group = np.arange(len(counts)).repeat(counts)
    chance = np.concatenate([rng.beta(4 * p, 4 * (1 - p), count) for p, count in zip(shares, counts)])
    return rng.random(len(owner)) < chance[owner], group[owner], owner


def by_dimension(rng, videos, shares):
    """The same where each video has 0 to 4 questions in each group, as in TempCompass."""
    owner, group = (each.ravel().repeat(3) for each in np.indices((videos, len(shares))))
    kept = rng.random(len(owner)) < 0.7
    owner, group = owner[kept], group[kept]
    shift = rng.uniform(-0.1, 0.1, videos)
    return rng.random(len(owner)) < np.array(shares)[group] + shift[owner], group, owner


@pytest.mark.parametrize(
    ("counts", "questions"), [((54, 36, 35, 21, 26, 20, 26), (1, 1)), ((60, 20, 10, 8, 30, 12, 5), (1, 8))]
)
def test_the_interval_covers_the_mean_of_groups(counts, questions):
    """And that of all questions together does not: it is about another number."""
    rng, truth = np.random.default_rng(0), np.mean(TASKS)
    ours = pooled = 0
    for _ in range(600):
        right, groups, owner = by_task(rng, counts, questions)
        found = stats.group_mean(right, groups, owner)
        ours += found.low <= truth <= found.high
        plain = stats.proportion(right, owner)
        pooled += plain.low <= truth <= plain.high
    assert 0.93 * 600 <= ours <= 0.99 * 600, ours
    assert pooled < ours


def test_the_interval_covers_it_where_videos_are_in_all_groups():
    rng, shares = np.random.default_rng(1), (0.85, 0.4, 0.4, 0.5, 0.45)
    hits = widths = 0
    for _ in range(600):
        right, groups, owner = by_dimension(rng, 60, shares)
        found = stats.group_mean(right, groups, owner)
        hits += found.low <= np.mean(shares) <= found.high
        widths += found.high - found.low
    assert 0.93 * 600 <= hits <= 0.985 * 600, hits
    assert widths / 600 < 0.12, "the spread between groups is no error of their mean"


@pytest.mark.parametrize("counts", [(1,) * 20, (20, 20, 1, 1, 1), (2, 3, 2, 4, 3, 2, 3), (40, 40, 40, 1)])
def test_groups_of_one_video_or_few_widen_the_interval(counts):
    rng = np.random.default_rng(2)
    shares = np.linspace(0.2, 0.9, len(counts))
    hits = 0
    for _ in range(200):
        right, groups, owner = by_task(rng, counts, (1, 3), shares)
        found = stats.group_mean(right, groups, owner)
        assert 0 <= found.low <= found.mean <= found.high <= 1 and found.high - found.low > 0.05
        hits += found.low <= shares.mean() <= found.high
    assert hits >= 0.93 * 200, hits


def test_one_group_is_the_plain_mean():
    rng = np.random.default_rng(3)
    for _ in range(50):
        owner = rng.integers(0, 12, 40)
        right = rng.random(40) < rng.random()
        assert stats.group_mean(right, np.full(40, 7), owner) == stats.proportion(right, owner)
    names = np.array(["one"] * 40)
    assert stats.group_mean(right, names, owner).mean == pytest.approx(right.mean())


def test_each_group_has_the_same_weight():
    right = np.array([1] * 30 + [0] * 10)
    groups = np.array(["many"] * 30 + ["few"] * 10)
    found = stats.group_mean(right, groups, np.arange(40))
    assert found.mean == 0.5 and found.n == found.videos == 40
    # each group's answers are equal, and still the mean is uncertain
    assert 0.3 < found.low < 0.47 and 0.53 < found.high < 0.7
    # groups of the same size: the mean of all
    assert stats.group_mean(right, np.arange(40) % 2, np.arange(40)).mean == 0.75


def test_the_error_is_that_of_the_weighted_mean_with_clusters():
    rng = np.random.default_rng(4)
    right, groups, owner = by_task(rng, (5, 9, 20), (1, 6), (0.3, 0.5, 0.8))
    share = np.array([right[groups == g].mean() for g in range(3)])
    parts = (right - share[groups]) / (3 * np.bincount(groups)[groups])
    wanted = sum(parts[owner == v].sum() ** 2 for v in set(owner)) * 34 / 33
    assert stats.group_mean(right, groups, owner).error == pytest.approx(wanted**0.5, rel=1e-12)


def test_equal_values_are_as_certain_as_their_groups_are_large():
    owner = np.arange(100)
    even, uneven = owner % 4, np.minimum(owner, 3)  # the last of the uneven groups has 97 of the 100
    for value, low, high in ((1, 0, 1), (0, 0, 1), (3, 1, 5)):
        close, wide = (stats.group_mean(np.full(100, value), g, owner, low, high) for g in (even, uneven))
        assert close.mean == wide.mean == value
        assert low <= wide.low <= close.low <= value <= close.high <= wide.high <= high
        assert wide.high - wide.low > 3 * (close.high - close.low)
    every = stats.group_mean(np.ones(100), even, owner)
    assert (every.mean, every.high) == (1, 1) and 0.9 < every.low < 1


def test_one_video_and_two_videos():
    one = stats.group_mean(np.array([1, 0, 1]), np.array([0, 0, 1]), np.zeros(3))
    assert (one.mean, one.low, one.high, one.videos) == (0.75, 0, 1, 1)
    two = stats.group_mean(np.array([1, 0]), np.array([0, 1]), np.array([0, 1]))
    assert two.mean == 0.5 and two.low < 0.1 and two.high > 0.9
    with pytest.raises(ValueError, match="needed values"):
        stats.group_mean(np.ones(3), np.ones(2), np.ones(3))


def test_a_difference_of_group_means_is_paired_and_tested():
    rng = np.random.default_rng(5)
    found = covered = 0
    for _ in range(300):
        one, groups, owner = by_task(rng, (40, 10, 10), (1, 5), (0.6, 0.5, 0.4))
        other = one & (rng.random(len(one)) < np.array([1.0, 0.5, 0.5])[groups])  # worse in the small groups alone
        gap = stats.difference(one, other, owner, groups=groups)
        covered += gap.estimate.low <= (0.25 + 0.2) / 3 <= gap.estimate.high
        found += gap.p < 0.05
        means = [np.mean(one[groups == g]) - np.mean(other[groups == g]) for g in range(3)]
        assert gap.estimate.mean == pytest.approx(np.mean(means))
    assert found > 290 and covered >= 0.91 * 300, (found, covered)


def test_a_difference_of_group_means_that_is_not_there_is_rarely_found():
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(400):
        one, groups, owner = by_task(rng, (30, 10, 5), (1, 4), (0.6, 0.5, 0.4))
        other = by_task(rng, (30, 10, 5), (1, 1), (0.6, 0.5, 0.4))[0][owner]
        gap = stats.difference(one, other, owner, groups=groups)
        found += gap.p < 0.05
        assert (gap.p < 0.05) == (not gap.estimate.low <= 0 <= gap.estimate.high)
    assert 4 <= found <= 30, found


def test_a_difference_of_one_group_is_the_plain_one():
    rng = np.random.default_rng(7)
    one, other, owner = rng.random(60) < 0.6, rng.random(60) < 0.4, np.arange(60) // 3
    plain = stats.difference(one, other, owner)
    grouped = stats.difference(one, other, owner, groups=np.zeros(60))
    assert grouped == plain
