"""Intervals and differences when questions come in clusters: those about one video are not independent.

Standard errors are cluster-robust (Liang & Zeger 1986) with as many degrees of freedom as there are videos less one.
All is in the units of the values: shares for right (1) and wrong (0), points for scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, its standard error, and how many values of how many videos are behind it."""

    mean: float
    low: float
    high: float
    error: float
    n: int
    videos: int


def mean(values: np.ndarray, videos: np.ndarray) -> Estimate:
    """Of (N) values, each about one of (N) videos: a t interval. With one video it is unbounded."""
    value, error, groups = _mean_error(values, videos)
    reach = _t(0.975, groups) * error if groups > 1 else np.inf
    return Estimate(value, value - reach, value + reach, error, len(values), groups)


def share(right: np.ndarray, videos: np.ndarray) -> Estimate:
    """Of (N) answers the share that is right: Wilson's interval for as many independent questions as these are worth.

    Their number follows from the standard error; where all are right, or none, each video counts once.
    """
    value, error, groups = _mean_error(right, videos)
    worth = min(len(right), value * (1 - value) / error**2) if error and 0 < value < 1 else groups
    t = _t(0.975, groups) if groups > 1 else np.inf
    if not np.isfinite(t):
        return Estimate(value, 0.0, 1.0, error, len(right), groups)
    centre = (value + t**2 / (2 * worth)) / (1 + t**2 / worth)
    reach = t / (1 + t**2 / worth) * np.sqrt(value * (1 - value) / worth + t**2 / (4 * worth**2))
    low, high = max(0.0, float(centre - reach)), min(1.0, float(centre + reach))
    return Estimate(value, min(low, value), max(high, value), error, len(right), groups)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, the p-value of there being none, and the least that the data could detect."""

    estimate: Estimate
    p: float
    detectable: float
    """The true difference that would be found (p < 0.05) in 80 of 100 such data sets"""


def difference(one: np.ndarray, other: np.ndarray, videos: np.ndarray) -> Difference:
    """Of (N) values minus (N) others on the same questions."""
    gain = np.asarray(one, float) - np.asarray(other, float)
    found = mean(gain, videos)
    if found.videos < 2:
        return Difference(found, 1.0, np.inf)
    if not gain.any():
        # no video differed: a share of them that would go unseen in 97.5 of 100 such data sets may
        reach = 1 - 0.025 ** (1 / found.videos)
        return Difference(Estimate(0.0, -reach, reach, 0.0, found.n, found.videos), 1.0, reach)
    if found.error < 1e-12:  # every video differs by the same
        return Difference(found, 0.0, 0.0)
    p = 2 * stats.t.sf(abs(found.mean) / found.error, found.videos - 1)
    detectable = (_t(0.975, found.videos) + _t(0.8, found.videos)) * found.error
    return Difference(found, float(p), float(detectable))


def holm(p: np.ndarray) -> np.ndarray:
    """(N) p-values -> the same, corrected for N comparisons (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1)).clip(max=1)
    out = np.empty(len(p))
    out[order] = raised
    return out


def _mean_error(values: np.ndarray, videos: np.ndarray) -> tuple[float, float, int]:
    values = np.asarray(values, float)
    if not len(values) or len(values) != len(videos):
        raise ValueError(f"needed values and as many videos, got {len(values)} and {len(videos)}")
    owner = np.unique(videos, return_inverse=True)[1]
    groups = int(owner.max()) + 1
    value = float(values.mean())
    residuals = np.bincount(owner, values - value)
    error = float(np.sqrt(groups / (groups - 1) * (residuals**2).sum())) / len(values) if groups > 1 else np.inf
    return value, error, groups


def _t(at: float, groups: int) -> float:
    return float(stats.t.ppf(at, groups - 1))
