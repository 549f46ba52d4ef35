"""Sums over videos and groups: what the interval of a mean of group means is made of."""

from __future__ import annotations

import numpy as np

_TINY = 1e-9  # a smaller spread of the values is rounding


class Cells:
    """Which values are about which video and in which group. A cell is a group's part of a video.

    Args:
        groups: (N) the group of each value.
        videos: (N) the video of each; a video may be in several groups.

    Attributes:
        owner: (N) the index of each value's video.
        stratum: (N) the index of each value's group.
        index: (N) the index of each value's cell.
        group: the group of each cell.
        video: the video of each cell.
        videos: the number of videos.
        groups: the number of groups.
    """

    def __init__(self, groups: np.ndarray, videos: np.ndarray) -> None:
        self.owner, self.stratum = (np.unique(each, return_inverse=True)[1] for each in (videos, groups))
        self.videos, self.groups = int(self.owner.max()) + 1, int(self.stratum.max()) + 1
        cells, self.index = np.unique(self.stratum * self.videos + self.owner, return_inverse=True)
        self.group, self.video = np.divmod(cells, self.videos)


class Strata:
    """Values by group and video.

    Args:
        values: (N) the values.
        cells: the group and the video of each.

    Attributes:
        mean: the mean of the groups' means.
        videos: the number of videos.
        groups: the number of groups.
        shares: (N) the weight of each value in `mean`; they add up to 1.
        owner: (N) the index of each value's video.
    """

    def __init__(self, values: np.ndarray, cells: Cells) -> None:
        self.owner, self.videos, self.groups = cells.owner, cells.videos, cells.groups
        self._group, self._video = cells.group, cells.video
        self._sizes, self._sums = np.bincount(cells.index), np.bincount(cells.index, values)
        self._totals = np.bincount(self._group, self._sizes)
        self._in_group = np.bincount(self._group)  # videos
        self._means = np.bincount(self._group, self._sums) / self._totals
        self.mean = float(self._means.mean())
        self.shares = 1 / (self.groups * self._totals[cells.stratum])
        self._residuals = values - self._means[cells.stratum]
        self._deviations = np.sqrt(np.bincount(cells.stratum, self._residuals**2) / self._totals)

    def error(self) -> float:
        """The cluster-robust standard error of the mean (Liang & Zeger); inf for one video."""
        if self.videos < 2:
            return np.inf
        sums = np.bincount(self.owner, self.shares * self._residuals)
        return float(np.sqrt(self.videos / (self.videos - 1) * (sums**2).sum()))

    def changes(self) -> np.ndarray:
        """(videos) The change of the mean without each video, scaled so that the squares add up to its variance.

        A group about one video would be empty without it: the video changes the mean by its distance from it.
        """
        alone = self._in_group[self._group] == 1
        center = np.where(alone, self.mean, self._means[self._group])
        rest = self._totals[self._group] - np.where(alone, 0, self._sizes)
        known = self._in_group[self._group]
        scale = np.where(alone, 1.0, np.sqrt((known - 1) / known)) / self.groups
        return np.bincount(self._video, scale * (self._sums - self._sizes * center) / rest)

    def degrees(self) -> float:
        """The degrees of freedom: videos, less one for each group that has videos of its own."""
        strata = np.count_nonzero(self._in_group > 1) + np.any(self._in_group == 1)
        return max(1.0, self.videos * (1 - strata / len(self._sizes)))

    def deviations(self, span: float) -> np.ndarray:
        """(groups) The standard deviation in each group, on values that span so much.

        In a group of equal values half a value more at either end gives the deviation, with as many values as its
        videos are worth.
        """
        worth = self._totals**2 / np.bincount(self._group, self._sizes**2)
        smoothed = span * np.sqrt((worth + 0.5) * 0.5) / (worth + 1)
        return np.where(self._deviations > _TINY * span, self._deviations, smoothed)

    def variance_if_independent(self, deviations: np.ndarray) -> float:
        """The variance of the mean if all values were independent."""
        return float((deviations**2 / self._totals).sum()) / self.groups**2

    def variance_if_alike(self, deviations: np.ndarray) -> float:
        """The variance of the mean if all values about a video were the same."""
        parts = deviations[self._group] * self._sizes / self._totals[self._group] / self.groups
        return float((np.bincount(self._video, parts) ** 2).sum())
