"""Compare the judges of a run: how far they agree on the same predictions, and where they differ.

All intervals are 95 % and clustered by video, as in `results`. The interval of kappa comes from the jackknife, which
leaves out one video at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.runs.coded import combine
from sfllava.runs.run_folder import RunError

_ENDS = ((np.min, np.inf), (np.max, -np.inf))


@dataclass(frozen=True)
class Pair:
    """The agreement of two judges on the items that both have judged.

    Attributes:
        one: The name of one judge.
        other: The name of the other.
        both: Number of items that both have judged.
        agree: The proportion of them, 0 to 1, on which both give the same verdict.
        kappa: Cohen's kappa and the ends of its interval; for scores, with quadratic weights. NaN if both judges always
            give the same verdict.
        confusion: Counts, with a row for each verdict of `one` and a column for each verdict of `other`.
    """

    one: str
    other: str
    both: int
    agree: float
    kappa: tuple[float, float, float]
    confusion: pd.DataFrame


def judge_pairs(verdicts: pd.DataFrame) -> list[Pair]:
    """Compare every two judges in a table from `load_verdicts`, on the items that both have judged.

    Verdicts are compared as yes or no; under rubrics that give scores only, as scores rounded to integers.

    Raises:
        RunError: Two judges judge under different rubrics.
    """
    found = []
    items = _items(verdicts)
    states, videos = verdicts["state"].to_numpy(), verdicts["video"].cat.codes.to_numpy()
    tables = {str(judge): rows for judge, rows in _rows_of_judges(verdicts)}
    for one, other in combinations(tables, 2):
        judged = [rows[states[rows] == "judged"] for rows in (tables[one], tables[other])]
        _, *both = np.intersect1d(*(items[rows] for rows in judged), assume_unique=True, return_indices=True)
        joined = [verdicts.iloc[rows[at]] for rows, at in zip(judged, both)]
        decided = all(part["correct"].notna().all() for part in joined)
        if len(joined[0]) and decided:
            labels = ["no", "yes"]
            given = [part["correct"].to_numpy(int) for part in joined]
        elif all(part["score"].notna().all() for part in joined):
            labels = [str(i) for i in range(6)]
            given = [np.floor(part["score"].to_numpy(float) + 0.5).astype(int) for part in joined]
        else:
            raise RunError(f"{one} and {other} judge under different rubrics: they cannot be compared")
        found.append(_pair(one, other, given, videos[judged[0][both[0]]], labels))
    return found


def _items(verdicts: pd.DataFrame) -> np.ndarray:
    """Return (N) the number of the item that each row is about."""
    return combine(*(verdicts[name].cat.codes.to_numpy() for name in ("key", "setting", "rubric")))[0]


def _rows_of_judges(verdicts: pd.DataFrame) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield each judge with the indices of its rows."""
    judges = verdicts["judge"]
    for judge in judges.unique():
        yield judge, np.flatnonzero(judges == judge)


def _pair(one: str, other: str, given: list[np.ndarray], videos: np.ndarray, labels: list[str]) -> Pair:
    k = len(labels)
    names, owner = np.unique(videos, return_inverse=True)
    tables = np.zeros((len(names), k * k))
    np.add.at(tables, (owner, given[0] * k + given[1]), 1)
    whole = tables.sum(0).reshape(k, k)
    found = kappa_interval(tables, k)
    confusion = pd.DataFrame(whole.astype(int), pd.Index(labels, name=one), pd.Index(labels, name=other))
    agree = float(np.trace(whole) / whole.sum()) if whole.sum() else float("nan")
    return Pair(one, other, int(whole.sum()), agree, found, confusion)


def kappa_interval(tables: np.ndarray, k: int) -> tuple[float, float, float]:
    """Compute kappa over several videos, with its interval.

    The interval is a t interval of log(1 - kappa), by the jackknife over videos. If the judges always agree, its lower
    end allows for disagreement on videos that a sample of this size may have missed (`stats.unseen`).

    Args:
        tables: (N k*k) The confusion table of each of N videos, flattened.
        k: Number of labels.
    """
    whole = tables.sum(0)
    middle = float(kappa(whole.reshape(1, k, k))[0])
    if np.isnan(middle) or len(tables) < 2:
        return middle, *((np.nan, np.nan) if np.isnan(middle) else (-1.0, 1.0))
    if middle > 1 - 1e-9:
        shares = whole.reshape(k, k).sum(0) / whole.sum()
        weights = np.subtract.outer(np.arange(k), np.arange(k)) ** 2.0
        worst = weights[np.ix_(shares > 0, shares > 0)].max()
        return middle, max(-1.0, 1 - stats.unseen(len(tables)) * worst / float(shares @ weights @ shares)), 1.0
    without = kappa((whole - tables).reshape(-1, k, k))
    # Without one video, the judges may always give the same verdict or always agree. The error stays finite even so.
    logs = np.log(np.maximum(1 - np.where(np.isnan(without), middle, without), 1e-3 * (1 - middle)))
    error = np.sqrt((len(tables) - 1) / len(tables) * ((logs - logs.mean()) ** 2).sum())
    reach = stats.t_quantile(0.975, len(tables)) * error
    ends = 1 - (1 - middle) * np.exp([reach, -reach])
    return middle, max(-1.0, float(ends[0])), min(1.0, float(ends[1]))


def kappa(tables: np.ndarray) -> np.ndarray:
    """Compute Cohen's kappa (N) of confusion tables (N k k), quadratically weighted; NaN where it is undefined."""
    k = tables.shape[1]
    weights = np.subtract.outer(np.arange(k), np.arange(k)) ** 2.0
    n = tables.sum((1, 2))
    expected = tables.sum(2)[:, :, None] * tables.sum(1)[:, None, :] / np.maximum(n, 1)[:, None, None]
    seen, chance = (tables * weights).sum((1, 2)), (expected * weights).sum((1, 2))
    return np.where(chance > 0, 1 - seen / np.where(chance > 0, chance, 1), np.nan)


def kappas(found: Sequence[Pair]) -> pd.DataFrame:
    """Kappa of each two judges as a square table, NaN on its diagonal."""
    names = list(dict.fromkeys(name for pair in found for name in (pair.one, pair.other)))
    table = pd.DataFrame(np.nan, names, names)
    for pair in found:
        table.loc[pair.one, pair.other] = table.loc[pair.other, pair.one] = pair.kappa[0]
    return table


def disagreements(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return the questions on which judges differ: yes against no, or by more than one point of score.

    The table has one row per question, setting and rubric, and one column per judge.
    """
    about = ["key", "setting", "rubric", "question", "answer", "prediction"]
    judged = verdicts.loc[verdicts["state"] == "judged"]
    decided = judged["correct"].notna().all()
    given = judged["correct" if decided else "score"].to_numpy(float, na_value=np.nan)
    items, first = combine(*(judged[name].cat.codes.to_numpy() for name in about[:3]))
    wide = np.full((len(first), judged["judge"].nunique()), np.nan)
    names = sorted(judged["judge"].unique())
    for judge, rows in _rows_of_judges(judged):
        wide[items[rows], names.index(judge)] = given[rows]
    least, most = (reduce(wide, axis=1, initial=end, where=~np.isnan(wide)) for reduce, end in _ENDS)
    differ = np.flatnonzero(most - least > (0 if decided else 1))
    table = judged.iloc[first[differ]][about].astype(object).reset_index(drop=True)
    for judge, values in zip(names, wide[differ].T):
        table[judge] = pd.Series(values).map({1.0: "yes", 0.0: "no"}) if decided else values
    return table.sort_values(about[:3], ignore_index=True)


def format_pairs(found: Sequence[Pair]) -> str:
    """Format the agreement, kappa and confusion table of each pair of judges as text."""
    lines = []
    for pair in found:
        middle, low, high = pair.kappa
        shown = "undefined (both always say the same)" if np.isnan(middle) else f"{middle:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"{pair.one} and {pair.other}: {pair.both} judged by both, kappa {shown}")
        if pair.both:
            lines.append(f"  agreement {100 * pair.agree:.1f} %; rows {pair.one}, columns {pair.other}:")
            table = pair.confusion.rename_axis(None).rename_axis(None, axis=1).to_string()
            lines += [f"    {line}" for line in table.split("\n")]
    return "\n".join(lines)
