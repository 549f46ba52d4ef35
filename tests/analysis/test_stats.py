from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import beta

from sfllava.analysis import stats


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
        found = stats.proportion(right, owner)
        ours += found.low <= truth <= found.high
        mean, reach = right.mean(), 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
        naive += mean - reach <= truth <= mean + reach
    assert 930 <= ours <= 975 and naive < 850, (ours, naive)


def test_differences_cover_the_truth_too_and_find_what_they_can_detect():
    rng = np.random.default_rng(1)
    covered = found = 0
    min_detectable_effect = []
    for _ in range(1000):
        one, owner, chance = simulated(rng, 80, 3, 9, 0.6, 4)
        other = rng.random(len(owner)) < chance[owner] - 0.06
        gap = stats.difference(one, other, owner)
        truth = (chance - (chance - 0.06).clip(min=0)).mean()
        covered += gap.estimate.low <= truth <= gap.estimate.high
        found += gap.p < 0.05
        min_detectable_effect.append(gap.min_detectable_effect)
    assert 930 <= covered <= 970, covered
    # at a true difference of 5.8 points and about 8.5 detectable ones, half are found; at the min_detectable_effect, 80 of 100
    assert 0.06 < np.mean(min_detectable_effect) < 0.11 and 300 < found < 650, (np.mean(min_detectable_effect), found)


def test_what_is_detectable_is_found_four_times_in_five():
    rng = np.random.default_rng(2)
    gap = 0.1
    found, min_detectable_effect = 0, []
    for _ in range(500):
        owner = np.repeat(np.arange(70), 6)
        other = rng.random(420) < 0.5
        one = rng.random(420) < 0.5 + gap
        test = stats.difference(one, other, owner)
        found += test.p < 0.05
        min_detectable_effect.append(test.min_detectable_effect)
    share = found / 500
    # a normal curve around the 80 % that belong to the detectable difference
    assert (share > 0.8) == (gap > np.mean(min_detectable_effect)) or abs(share - 0.8) < 0.05, (
        share,
        np.mean(min_detectable_effect),
    )


def test_clusters_widen_an_interval():
    """40 videos of 10 equal answers each are 40 observations, not 400."""
    values = (np.arange(40) % 2).repeat(10)
    clustered = stats.proportion(values, np.arange(40).repeat(10))
    single = stats.proportion(values, np.arange(400))
    assert clustered.mean == single.mean == 0.5 and clustered.videos == 40 and single.videos == 400
    assert clustered.high - clustered.low > 2.5 * (single.high - single.low)


def test_edges():
    everything = stats.proportion(np.ones(30), np.arange(30))
    assert everything.mean == everything.high == 1 and 0.8 < everything.low < 0.95
    nothing = stats.proportion(np.zeros(30), np.arange(30))
    assert nothing.mean == nothing.low == 0 and nothing.high == pytest.approx(1 - everything.low)
    one_video = stats.proportion(np.array([1, 0, 1]), np.zeros(3))
    assert (one_video.low, one_video.high) == (0, 1)
    same = stats.difference(np.ones(50), np.ones(50), np.arange(50)).estimate
    assert same.mean == 0 and -0.1 < same.low < 0 < same.high < 0.1
    assert stats.difference(np.ones(50), np.zeros(50), np.arange(50)).p < 1e-9
    with pytest.raises(ValueError, match="needed values"):
        stats.proportion(np.array([]), np.array([]))


@pytest.mark.parametrize("truth", [0.02, 0.1, 0.98])
@pytest.mark.parametrize("videos", [5, 20])
def test_shares_near_the_ends_of_few_uneven_videos_are_covered(truth, videos):
    """docs/concepts/intervals.md has all cases. Wilson's interval with the same errors covers 90 to 91 of 100 of the last three."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(600):
        right, owner, _ = simulated(rng, videos, 1, 30, truth, 4)
        found = stats.proportion(right, owner)
        hits += found.low <= truth <= found.high
    assert hits >= 0.93 * 600, hits


@pytest.mark.parametrize(("videos", "least"), [(2, 0), (3, 0), (5, 0), (10, 5), (50, 12)])
def test_a_difference_that_is_not_there_is_rarely_found(videos, least):
    """At most one time in twenty, and with five videos or fewer never."""
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(400):
        one, owner, chance = simulated(rng, videos, 1, 12, 0.6, 4)
        found += stats.difference(one, rng.random(len(owner)) < chance[owner], owner).p < 0.05
    assert found <= 30 if videos > 5 else found == 0
    assert found >= least, "it must find some, or it could never find what is there"


def test_p_is_the_share_of_all_sign_flips():
    rng = np.random.default_rng(5)
    for _ in range(20):
        sizes = rng.integers(1, 5, 8)
        owner = np.repeat(np.arange(8), sizes)
        one, other = rng.integers(0, 2, (2, len(owner)))
        sums = np.bincount(owner, one - other)
        flipped = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=8)]
        found = stats.difference(one, other, owner)
        assert found.p == pytest.approx(np.mean(np.array(flipped) >= abs(sums.sum())))
        # fractions of so few videos go through all flips too
        assert stats.difference(0.3 * one, 0.3 * other, owner, 9).p == pytest.approx(found.p)
        # the interval says the same as the test
        assert (found.p < 0.05) == (not found.estimate.low <= 0 <= found.estimate.high)
    # of fractions the flips are drawn: close to the exact value, and the same at each call
    owner = np.repeat(np.arange(40), 5)
    one, other = rng.integers(0, 2, (2, 200))
    exact, drawn = (stats.difference(scale * one, scale * other, owner, 9).p for scale in (1, 0.3))
    assert drawn == pytest.approx(exact, abs=0.02) and drawn == stats.difference(0.3 * one, 0.3 * other, owner, 9).p


def test_a_certain_difference_is_significant_among_many_pairs():
    """25 settings make 300 pairs; of fractions, p comes from drawn flips."""
    owner, right = np.repeat(np.arange(60), 4), np.tile([0.3, 0.3, 0.0, 0.3], 60)
    values = np.stack([np.zeros(240), *[right + 0.001 * i for i in range(24)]])
    pairs = list(itertools.combinations(range(25), 2))
    found = stats.differences(values, pairs, owner)
    corrected = stats.holm(np.array([each.p for each in found]))
    assert corrected[0] < 0.05 and found[0].p == pytest.approx(1 / 24_001)
    few = stats.differences(values[:2], [(0, 1)], owner)
    assert few[0].p == pytest.approx(1 / 5_000)


def test_the_interval_and_the_test_say_the_same_at_the_border():
    rng = np.random.default_rng(7)
    near = 0
    for _ in range(300):
        owner = np.repeat(np.arange(20), 3)
        found = stats.difference(rng.random(60) < 0.5, rng.random(60) < 0.3, owner)
        near += 0.03 < found.p < 0.07
        assert (found.p < 0.05) == (not found.estimate.low <= 0 <= found.estimate.high)
    assert near > 10


def test_differences_that_cancel_out_are_not_certain():
    one, other = np.ones(6370), np.ones(6370)
    one[0] = other[1] = 0  # one question each way, about the same video
    found = stats.difference(one, other, np.arange(6370) // 26)
    assert (
        found.p == 1 and found.estimate.low < -0.01 < 0.01 < found.estimate.high and found.min_detectable_effect > 0.01
    )
    # all alike, and no more than three videos
    alike = stats.difference(np.ones(6), np.zeros(6), np.arange(6) // 2)
    assert (alike.p, alike.estimate.low, alike.estimate.high, alike.min_detectable_effect) == (0.25, -1, 1, np.inf)


def test_a_difference_that_is_the_same_in_every_video_is_not_certain():
    six = stats.difference(np.ones(6), np.zeros(6), np.arange(6)).estimate
    assert (six.mean, six.high) == (1, 1) and six.low == pytest.approx(1 - 2 * stats.unseen(6))
    # nearly so: of 20 videos with 8 questions each, one has a wrong answer
    one = np.ones(160)
    one[3] = 0
    near = stats.difference(one, np.zeros(160), np.arange(160) // 8).estimate
    assert near.low < near.mean - stats.unseen(20) and near.mean < near.high <= 1
    # one setting is right in 90 %, the other never, on 10 videos
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        found = stats.difference(rng.random(10) < 0.9, np.zeros(10), np.arange(10)).estimate
        covered += found.low <= 0.9 <= found.high
    assert covered >= 190


def test_equal_scores_of_a_few_videos_are_not_certain():
    found = stats.mean(np.full(20, 3.0), np.arange(20) // 4, 0, 5)
    assert found.mean == 3 and found.low < 1.5 and found.high > 3.9
    many = stats.mean(np.full(2000, 3.0), np.arange(2000) // 4, 0, 5)
    assert 2.9 < many.low < 3 < many.high < 3.1
    assert stats.mean(np.array([0.0, 5.0, 5.0]), np.arange(3), 0, 5).high < 5.001, "no score is above the greatest"


def test_standard_errors_are_those_of_a_regression_with_clusters():
    """statsmodels' OLS on a constant, cov_type="cluster", gives this error: by its formula, a loop over clusters."""
    rng = np.random.default_rng(6)
    values, owner = rng.random(300), rng.integers(0, 40, 300)
    groups = len(set(owner))
    meat = sum((values[owner == g] - values.mean()).sum() ** 2 for g in set(owner))
    wanted = np.sqrt(meat * groups / (groups - 1)) / 300
    for found in (stats.mean(values, owner, 0, 1), stats.difference(values, np.zeros(300), owner).estimate):
        assert found.error == pytest.approx(wanted, rel=1e-14)


def test_holm():
    assert stats.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_one_video_says_nothing_about_others():
    found = stats.mean(np.array([1.0, 0.0, 1.0, 1.0]), np.zeros(4), 0, 1)
    assert (found.mean, found.low, found.high, found.error, found.n, found.videos) == (0.75, 0, 1, np.inf, 4, 1)
    gap = stats.difference(np.array([1, 1]), np.array([0, 0]), np.zeros(2))
    assert (gap.p, gap.estimate.low, gap.estimate.high, gap.min_detectable_effect) == (1, -1, 1, np.inf)


def test_the_share_of_unseen_videos_is_exact():
    # (1 - share) ** videos = 0.025
    assert [stats.unseen(n) for n in (1, 2, 20)] == pytest.approx([0.975, 1 - 0.025**0.5, 1 - 0.025**0.05], rel=1e-12)


def test_quantiles_are_those_of_student_s_t():
    # from a table of t: 4 and 9 degrees of freedom
    assert stats.t_quantile(0.975, 5) == pytest.approx(2.776, abs=5e-4)
    assert stats.t_quantile(0.8, 10) == pytest.approx(0.883, abs=5e-4)


def test_fewest_videos_is_where_a_difference_can_be_significant():
    ones, zeros = np.ones(6), np.zeros(6)
    five = stats.difference(ones[:5], zeros[:5], np.arange(5))
    six = stats.difference(ones, zeros, np.arange(6))
    assert (five.p, six.p) == pytest.approx((2 / 2**5, 2 / 2**6))
    assert five.min_detectable_effect == np.inf and np.isfinite(six.min_detectable_effect)


def test_the_least_detectable_effect_is_two_quantiles_of_the_error():
    one = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 1.0])
    gap = stats.difference(one, np.array([0, 0, 0, 0, 1, 0, 0, 0, 1, 0.0]), np.arange(10))
    error = np.std([1] * 8 + [-1] * 2, ddof=1) / 10**0.5
    assert gap.estimate.error == pytest.approx(error) and gap.estimate.mean == pytest.approx(0.6)
    assert gap.min_detectable_effect == pytest.approx((2.262157 + 0.883404) * error, rel=1e-5)
    # 8 or more of 10 signs alike, either way: 2 * (45 + 10 + 1) / 1024
    assert gap.p == pytest.approx(112 / 1024)


def test_what_is_detectable_is_at_the_corrected_level():
    rng = np.random.default_rng(0)
    values, owner = rng.random((3, 40)) < 0.5, np.arange(40) // 4  # 10 videos
    alone, among = (stats.differences(values, pairs, owner)[0] for pairs in ([(0, 1)], [(0, 1), (0, 2), (1, 2)]))
    assert (alone.p, alone.estimate) == (among.p, among.estimate)
    # from a table of t with 9 degrees of freedom: 2.262 at 0.025, 2.933 at 0.025 / 3, 0.883 at 0.2
    assert among.min_detectable_effect / alone.min_detectable_effect == pytest.approx(
        (2.933 + 0.883) / (2.262 + 0.883), abs=1e-3
    )
    # of six videos no p-value is below 0.05 / 2
    assert stats.differences(values, [(0, 1), (0, 2)], np.arange(40) % 6)[0].min_detectable_effect == np.inf


@pytest.mark.parametrize("bad", [0, 3])
def test_each_value_needs_its_video(bad):
    with pytest.raises(ValueError, match=f"needed values and as many videos, got {bad} and {0 if bad == 0 else 2}"):
        stats.mean(np.zeros(bad), np.zeros(0 if bad == 0 else 2), 0, 1)


@pytest.mark.parametrize(("videos", "right"), [(20, 19), (30, 28), (50, 48), (100, 97), (40, 20)])
def test_with_one_question_a_video_the_interval_is_nearly_clopper_and_pearson_s(videos, right):
    found = stats.proportion(np.repeat([1.0, 0.0], [right, videos - right]), np.arange(videos))
    low = beta.ppf(0.025, right, videos - right + 1)
    high = beta.ppf(0.975, right + 1, videos - right)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


@pytest.mark.parametrize("seed", [41, 142, 214, 252])
def test_a_significant_difference_has_an_interval_on_its_own_side_of_zero(seed):
    """In these data sets the flips that are drawn for the interval reach zero, and the exact test rejects it."""
    rng = np.random.default_rng(seed)
    one, other, owner = rng.random(60) < 0.55, rng.random(60) < 0.3, np.repeat(np.arange(20), 3)
    better, worse = stats.difference(one, other, owner), stats.difference(other, one, owner)
    assert better.p == worse.p < 0.05
    assert 0 < better.estimate.low < better.estimate.mean < better.estimate.high
    assert worse.estimate.low < worse.estimate.mean < worse.estimate.high < 0
