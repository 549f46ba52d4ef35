"""Compare the judges of a run: how far they agree on the same predictions, and where they differ.

All intervals are 95 % and clustered by video, as in `results`. The interval of kappa comes from the jackknife, which
leaves out one video at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.runs.run_folder import RunError


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
    judges: Any = verdicts.groupby("judge", sort=False)
    tables = {judge: table.set_index(["key", "setting", "rubric"]) for judge, table in judges}
    for one, other in combinations(tables, 2):
        joined = tables[one].join(tables[other], rsuffix="_other")
        joined: Any = joined[(joined["state"] == "judged") & (joined["state_other"] == "judged")]
        decided = joined["correct"].notna() & joined["correct_other"].notna()
        if len(joined) and decided.all():
            labels, column = ["no", "yes"], "correct"
            given = [joined[c].to_numpy(int) for c in (column, f"{column}_other")]
        elif joined["score"].notna().all() and joined["score_other"].notna().all():
            labels = [str(i) for i in range(6)]
            given = [np.floor(joined[c].to_numpy(float) + 0.5).astype(int) for c in ("score", "score_other")]
        else:
            raise RunError(f"{one} and {other} judge under different rubrics: they cannot be compared")
        found.append(_pair(one, other, given, joined["video"].to_numpy(str), labels))
    return found


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
    judged: Any = verdicts[verdicts["state"] == "judged"]
    about = ["key", "setting", "rubric", "question", "answer", "prediction"]
    decided = judged["correct"].notna().all()
    given = judged.assign(given=judged["correct"].map({True: "yes", False: "no"}) if decided else judged["score"])
    wide = given.pivot(index=about, columns="judge", values="given")
    if decided:
        return wide[wide.nunique(axis=1) > 1].reset_index()
    wide = wide.astype(float)
    return wide[wide.max(axis=1) - wide.min(axis=1) > 1].reset_index()


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
