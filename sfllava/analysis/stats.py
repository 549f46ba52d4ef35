"""Intervals and differences when questions come in clusters: those about one video are not independent.

Standard errors are cluster-robust (Liang & Zeger 1986). With few videos they are poor, so the intervals and the test do
not rest on them alone: a mean has the exact binomial interval of as many independent questions as it is worth (Korn &
Graubard 1998), and a paired difference the randomization test that flips the signs of whole videos, with the interval
that this test implies. All is in the units of the values: shares for right (1) and wrong (0), points for scores.

statsmodels would replace only `holm` and the unweighted kappa, a dozen lines, since its intervals and tests take
observations for independent and it has neither Korn and Graubard's interval nor a sign-flip test over clusters. For
that it would add a heavy dependency, so this module needs numpy and scipy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sfllava.analysis.strata import Cells, Strata

FEWEST_VIDEOS = 6
"""With fewer, no difference is significant: the smallest p-value of n sign flips is 2 / 2**n, 0.0625 for 5 videos."""
_FLIPS, _MOST_FLIPS = 4999, 100_000
_FLIPS_PER_PAIR = 80  # so that the smallest p of B flips, 1 / (B + 1), remains significant after Holm's correction
_PART = 500  # flips in memory at a time
_EXACT_VIDEOS = 12  # up to here all 2**n flips are taken, beyond it a random sample of them
_TINY = 1e-9  # of the range of the values: a smaller standard error is rounding


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval and standard error, from n values about a number of videos."""

    mean: float
    low: float
    high: float
    error: float
    n: int
    videos: int


def proportion(right: np.ndarray, videos: np.ndarray) -> Estimate:
    """The share of (N) answers that are right (1, wrong is 0), with (N) the video of each; see `mean`."""
    return mean(right, videos, 0.0, 1.0)


def mean(values: np.ndarray, videos: np.ndarray, low: float, high: float) -> Estimate:
    """The mean of clustered values, with a Clopper-Pearson interval.

    The interval treats the mean as a share of the range from `low` to `high`, at the effective sample size (Korn &
    Graubard 1998). This follows from the jackknife's standard error, which has the fewer degrees of freedom the fewer
    videos it comes from; it is at least what it would be if all answers about a video were the same (Kish 1965). Where
    all values are equal the interval allows for the videos that were not seen: as many as a sample of this size misses
    in more than 2.5 of 100 cases may have any value.

    Args:
        values: (N) scores, or 1 for right and 0 for wrong.
        videos: (N) the video of each.
        low: the smallest possible value.
        high: the largest possible value.
    """
    return group_mean(values, np.zeros(len(values)), videos, low, high)


def group_mean(
    values: np.ndarray, groups: np.ndarray, videos: np.ndarray, low: float = 0.0, high: float = 1.0
) -> Estimate:
    """The mean of the means of groups, all of equal weight, with the interval of `mean`.

    Groups are strata: the jackknife leaves a video out of each group that it is in. A group about one video has no
    spread to measure, so its video counts by its distance from the mean of all groups, as in collapsed strata. With one
    group this is `mean`.

    Args:
        values: (N) scores, or 1 for right and 0 for wrong.
        groups: (N) the group of each.
        videos: (N) the video of each; a video may have questions in several groups.
        low: the smallest possible value.
        high: the largest possible value.
    """
    values, n = np.asarray(values, float), len(values)
    strata = Strata(values, _cells(n, groups, videos))
    value, error, count, degrees = strata.mean, strata.error(), strata.videos, strata.degrees()
    if count < 2:
        return Estimate(value, low, high, error, n, count)
    if values.min() == values.max():
        missed = unseen(_known_from(degrees) / strata.variance_if_alike(np.ones(strata.groups)))
        return Estimate(value, value - missed * (value - low), value + missed * (high - value), error, n, count)
    without, deviations = strata.changes(), strata.deviations(high - low)
    variance = max((without**2).sum(), strata.variance_if_independent(deviations))
    kurtosis = count * (without**4).sum() / max((without**2).sum() ** 2, _TINY / n**4)
    proportion = (value - low) / (high - low)
    # the variance of answers that are either `low` or `high`
    spread = proportion * (1 - proportion) * (high - low) ** 2
    by_error = spread / variance
    least = _known_from(degrees) * min(spread / strata.variance_if_alike(deviations), by_error)
    worth = max(by_error * _known_from(min(degrees, count / max(kurtosis - 1, _TINY))), least)
    first = stats.beta.ppf(0.025, proportion * worth, worth * (1 - proportion) + 1)
    last = stats.beta.ppf(0.975, proportion * worth + 1, worth * (1 - proportion))
    start, end = (low + (high - low) * float(at) for at in (first, last))
    return Estimate(value, start, end, error, n, count)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, its p-value, and the smallest effect that the data could detect."""

    estimate: Estimate
    p: float
    min_detectable_effect: float
    """The true difference that would be significant in 80 of 100 such data sets; inf for too few videos.

    Significant is p < 0.05 divided by the number of pairs, the strictest that Holm's correction can ask for.
    """


def difference(
    one: np.ndarray, other: np.ndarray, videos: np.ndarray, limit: float = 1.0, groups: np.ndarray | None = None
) -> Difference:
    """The mean of paired differences, tested by flipping the signs of whole videos.

    Where there is no difference each video is as likely to favour one as the other by what it does. p is the share of
    all flips whose difference is at least as large: exact for whole numbers (right and wrong) and for few videos, else
    from 4,999 flips or more, drawn with a fixed seed. The interval has the differences that this test does not reject;
    where fewer than six videos differ at all, or nearly all by the same, it allows for those that were not seen too.

    Args:
        one: (N) values, such as 1 for right and 0 for wrong.
        other: (N) values of the other on the same questions.
        videos: (N) the video of each question.
        limit: the largest possible difference, in either direction.
        groups: (N) the group of each question; the difference is then that of the means of the groups' means.
    """
    return differences(np.stack([one, other]), [(0, 1)], videos, limit, groups)[0]


def differences(
    values: np.ndarray,
    pairs: Iterable[tuple[int, int]],
    videos: np.ndarray,
    limit: float = 1.0,
    groups: np.ndarray | None = None,
) -> list[Difference]:
    """The paired differences of several settings, as `difference` has them; what pairs have in common is done once.

    Args:
        values: (S N) the values of each setting on the same questions.
        pairs: the indices of the two settings of each difference.
        videos, limit, groups: as for `difference`.
    """
    values, n, pairs = np.asarray(values, float), values.shape[1], list(pairs)
    cells = _cells(n, np.zeros(n) if groups is None else groups, videos)
    weights = np.ones(n) if groups is None else Strata(values[0], cells).shares * n
    sums = np.stack([np.bincount(cells.owner, each) for each in (*(values * weights), weights)])
    whole = np.array_equal(sums, np.round(sums))  # then p is exact, and the flips are only for the intervals
    flips = _FLIPS if whole else min(max(_FLIPS, _FLIPS_PER_PAIR * len(pairs)), _MOST_FLIPS)
    flipped = np.concatenate([signs @ sums.T for signs in _flips(cells.videos, flips)])
    few = flipped[: _FLIPS + 1]
    found = []
    for one, other in pairs:
        gain = sums[one] - sums[other]
        gain[np.abs(gain) < _TINY] = 0.0
        interval = _flip_interval(gain.sum(), few[:, one] - few[:, other], sums[-1].sum(), few[:, -1], limit)
        strata = Strata(values[one] - values[other], cells)
        p = _flip_p(gain, flipped[:, one] - flipped[:, other])
        found.append(_difference(strata, gain, sums[-1], p, interval, limit, 0.05 / len(pairs)))
    return found


def _difference(
    strata: Strata,
    sums: np.ndarray,
    sizes: np.ndarray,
    p: float,
    interval: tuple[float, float],
    limit: float,
    alpha: float,
) -> Difference:
    """The difference of two settings from the sums and sizes by video of their differences, and what the flips say."""
    value, error, count = strata.mean, strata.error(), strata.videos
    differing = int(np.count_nonzero(sums))
    low, high = interval
    enough = 2 / 2**count < alpha  # as FEWEST_VIDEOS are for one pair
    min_detectable_effect = (t_quantile(1 - alpha / 2, count) + t_quantile(0.8, count)) * error if enough else np.inf
    missed = unseen(count)
    if differing < FEWEST_VIDEOS:
        low, high = min(low, -limit * missed), max(high, limit * missed)
        min_detectable_effect = max(min_detectable_effect, limit * missed)
    elif _nearly_alike(sums / sizes):
        low, high = min(low, value - missed * (value + limit)), max(high, value + missed * (limit - value))
        min_detectable_effect = max(min_detectable_effect, limit * missed)
    # the test is exact where the interval's flips are drawn: at the border it is the test that says on which side 0 is
    if p >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    elif low <= 0 <= high:
        low, high = (0.0 + _TINY, high) if value > 0 else (low, 0.0 - _TINY)
    estimate = Estimate(value, max(-limit, low), min(limit, high), error, len(strata.shares), count)
    return Difference(estimate, p, float(min_detectable_effect))


def _nearly_alike(gains: np.ndarray) -> bool:
    """Whether most videos have the same mean difference, and too few another one to show how they vary."""
    most = int(np.unique(np.round(gains, 9), return_counts=True)[1].max())
    return len(gains) - most < min(FEWEST_VIDEOS, len(gains) / 4)


def holm(p: np.ndarray) -> np.ndarray:
    """(N) p-values -> the same, corrected for N comparisons (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)).clip(max=1)
    out = np.empty(len(p))
    out[order] = raised
    return out


def _flip_p(sums: np.ndarray, drawn: np.ndarray) -> float:
    """The share of sign flips of (G) sums by video whose total is at least as far from 0 as theirs.

    `drawn` are the totals (B) under the flips that were drawn, their own first.
    """
    given, total = sums[sums != 0], abs(sums.sum())
    if not len(given):
        return 1.0
    if np.array_equal(given, np.round(given)):
        chances = _flip_totals(np.abs(given).astype(int))
        totals = np.arange(len(chances)) - len(chances) // 2
        return float(min(1.0, chances[np.abs(totals) >= total].sum()))
    if len(given) <= _EXACT_VIDEOS < len(sums):
        drawn = np.concatenate([signs @ given for signs in _flips(len(given))])
    total = min(total, abs(drawn[0]))  # the same but for rounding
    return float(np.mean(np.abs(drawn) >= total - _TINY * np.abs(given).sum()))


def _flip_totals(sizes: np.ndarray) -> np.ndarray:
    """The chance of each total, from -sum to sum, of whole numbers (G) with random signs."""
    chances = np.ones(1)
    for size, count in zip(*np.unique(sizes, return_counts=True)):
        ups = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        before, chances = chances, np.zeros(len(chances) + 2 * size * count)
        for start in range(min(2 * size, len(before))):  # this many totals apart are those that one flip leads to
            chances[start :: 2 * size][: len(before[start :: 2 * size]) + count] = np.convolve(
                before[start :: 2 * size], ups
            )
    return chances


def _flip_interval(s: float, a: np.ndarray, n: float, b: np.ndarray, limit: float) -> tuple[float, float]:
    """The differences c for which flipping the signs of sums - c * sizes gives p > 0.05.

    A flip with totals a of the sums and b of the sizes is as extreme as the data for all c between (s - a) / (n - b)
    and (s + a) / (n + b), which lie on either side of the mean s / n. So the ends are quantiles over the flips.

    Args:
        s: the total of the sums by video.
        a: (B) the total of the sums under each flip.
        n: the total of the sizes of the videos.
        b: (B) the total of the sizes under each flip.
        limit: the largest possible difference.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(s - a) / (n - b), (s + a) / (n + b)])
    # where all signs are equal, no difference is less extreme
    known = n - np.abs(b) > 0.5
    low, high = np.sort(np.where(known, ends.min(0), -np.inf)), np.sort(np.where(known, ends.max(0), np.inf))
    outside = int(0.05 * len(low))  # a difference that at most so many flips reach is rejected
    return max(-limit, float(low[outside])), min(limit, float(high[-1 - outside]))


def _flips(videos: int, drawn: int = _FLIPS) -> Iterator[np.ndarray]:
    """(B videos) signs in parts: all that there are, or the data's own and a sample with a fixed seed."""
    if videos <= _EXACT_VIDEOS:
        yield 1.0 - 2 * (np.arange(2**videos)[:, None] >> np.arange(videos) & 1)
        return
    yield np.ones((1, videos))
    draws = np.random.default_rng(0)
    for start in range(0, drawn, _PART):
        yield 1.0 - 2 * draws.integers(0, 2, (min(_PART, drawn - start), videos), np.int8)


def unseen(videos: float) -> float:
    """The largest share of videos of a kind that is missing from a sample in more than 2.5 of 100 cases."""
    return 1 - 0.025 ** (1 / videos)


def _cells(values: int, groups: np.ndarray, videos: np.ndarray) -> Cells:
    if not values or values != len(videos) or values != len(groups):
        raise ValueError(f"needed values and as many videos, got {values} and {len(videos)}")
    return Cells(groups, videos)


def _known_from(degrees: float) -> float:
    """The factor on an effective sample size whose standard error has so many degrees of freedom."""
    return float((stats.norm.ppf(0.975) / stats.t.ppf(0.975, max(degrees, 1.0))) ** 2)


def t_quantile(at: float, groups: int) -> float:
    """Quantile of Student's t with one degree of freedom less than clusters."""
    return float(stats.t.ppf(at, groups - 1))
