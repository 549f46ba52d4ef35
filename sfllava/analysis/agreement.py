"""Compare the judges of a run: the scores that each gives, and how far they agree on the same predictions.

All intervals are 95 % and clustered by video, as in `results`. The interval of kappa comes from the jackknife, which
leaves out one video at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.runs.run_folder import RunError
from sfllava.runs.verdicts import VCGBENCH, judge_names, read_items, read_verdicts, verdict_key, verdicts_path

RUBRICS = tuple(rubric for rubrics in VCGBENCH.values() for rubric in rubrics)
_SCORE_RANGE = (0.0, 5.0)
_UNKNOWN = stats.Estimate(np.nan, np.nan, np.nan, np.nan, 0, 0)


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


def load_verdicts(run: str | Path, judges: Sequence[str] = ()) -> pd.DataFrame:
    """Load the verdicts of a run's judges.

    Args:
        run: The run folder.
        judges: The names of the judges. Default: all judges that have verdicts in the run.

    Returns:
        One row per judge and item, with the columns judge, key, setting, rubric, video, question, answer, prediction,
        correct, score and state. The state is "judged"; "no prediction" if inference failed, which counts as wrong and
        as score 0; "failed" if the judge failed; or "unjudged". In the last two, correct and score are missing.

    Raises:
        RunError: A judge has no verdicts in the run, or a line of its file is not a verdict.
    """
    items = read_items(run)
    available = judge_names(run)
    if missing := sorted(set(judges) - set(available)):
        raise RunError(f"{run}: no verdicts by {', '.join(missing)}; there are {', '.join(available) or 'none'}")
    rows = []
    for judge in judges or available:
        verdicts = {verdict_key(row): row for row in read_verdicts(verdicts_path(run, judge))}
        for item in items:
            row = verdicts.get(item.row_key)
            if row and (item.request is None or row["content"] != item.request.content):
                row = None  # on a prediction that the run no longer has
            state = "no prediction" if item.request is None else "unjudged" if row is None else "judged"
            if row and row["error"]:
                state = "failed"
            unanswered, verdict = state == "no prediction", row if row and state == "judged" else {}
            rows.append(
                {
                    "judge": judge,
                    "key": item.key,
                    "setting": item.setting,
                    "rubric": item.rubric,
                    "video": item.video,
                    "question": " / ".join(item.request.questions) if item.request else "",
                    "answer": item.request.reference if item.request else "",
                    "prediction": " / ".join(item.request.predictions) if item.request else "",
                    "correct": False if unanswered and item.rubric == "open" else verdict.get("correct"),
                    "score": 0.0 if unanswered else verdict.get("score"),
                    "state": state,
                }
            )
    return pd.DataFrame(rows)


def judge_scores(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Compute the scores that each judge gives.

    Args:
        verdicts: A table from `load_verdicts`.

    Returns:
        One row per judge, setting and rubric, with the counts questions, judged, no_prediction, failed and unjudged;
        accuracy (percent) and score (0 to 5) with the ends of their intervals, _low and _high; and published. Accuracy
        and score leave out the questions that are failed or unjudged, since their verdicts are unknown. published is
        the mean score as the published evaluation computes it: over the judged questions, with scores truncated to
        integers. For VCGBench, a further row `average` has the mean of the five rubrics.
    """
    rows = []
    for names, group in _groups(verdicts, ["judge", "setting"]):
        for rubric, part in _groups(group, ["rubric"]):
            rows.append(dict(zip(("judge", "setting"), names)) | {"rubric": rubric[0]} | _scores_of(part))
        if set(group["rubric"]) == set(RUBRICS):
            rows.append(dict(zip(("judge", "setting"), names)) | {"rubric": "average"} | _average_of(group))
    return pd.DataFrame(rows)


def _groups(table: pd.DataFrame, by: list[str]) -> Any:
    return table.groupby(by, sort=False)


def _scores_of(part: Any) -> dict[str, Any]:
    states = part["state"].value_counts()
    known: Any = part[part["state"].isin(["judged", "no prediction"])]
    out: dict[str, Any] = {"questions": len(part), **_counts(states)}
    videos = known["video"].to_numpy(str)
    decided = known["correct"].notna().all() and len(known) > 0
    found = stats.proportion(known["correct"].to_numpy(float), videos) if decided else _UNKNOWN
    out |= {"accuracy": 100 * found.mean, "accuracy_low": 100 * found.low, "accuracy_high": 100 * found.high}
    scored = known["score"].notna().all() and len(known) > 0
    found = stats.mean(known["score"].to_numpy(float), videos, *_SCORE_RANGE) if scored else _UNKNOWN
    out |= {"score": found.mean, "score_low": found.low, "score_high": found.high}
    judged: Any = part[part["state"] == "judged"]["score"].to_numpy(float)
    out["published"] = float(np.trunc(judged).mean()) if scored and len(judged) else np.nan
    return out


def _counts(states: Any) -> dict[str, int]:
    names = {"judged": "judged", "no_prediction": "no prediction", "failed": "failed", "unjudged": "unjudged"}
    return {column: int(states.get(state, 0)) for column, state in names.items()}


def _average_of(group: pd.DataFrame) -> dict[str, Any]:
    known: Any = group[group["state"].isin(["judged", "no prediction"])]
    out = {"questions": len(group), **_counts(group["state"].value_counts())}
    nothing = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"), np.nan)
    means: Any = known.groupby("rubric")["score"].mean() if known["score"].notna().all() else ()
    if len(means) < len(RUBRICS):
        return out | nothing | {"score": np.nan, "score_low": np.nan, "score_high": np.nan, "published": np.nan}
    # Weight each score by its influence on the average of the rubrics. The mean of the weighted scores is that average,
    # so the interval of a mean applies, with all rubrics of a video in one cluster.
    weight = len(known) / len(RUBRICS) / known.groupby("rubric")["score"].transform("size")
    middle = float(np.mean(means))
    weighted = middle + (known["score"].astype(float) - known["rubric"].map(means)) * weight
    found = stats.mean(weighted.to_numpy(float), known["video"].to_numpy(str), *_SCORE_RANGE)
    judged: Any = group[group["state"] == "judged"]
    published = [float(np.trunc(judged[judged["rubric"] == r]["score"].to_numpy(float)).mean()) for r in RUBRICS]
    score = {"score": middle, "score_low": found.low, "score_high": found.high}
    return out | nothing | score | {"published": float(np.mean(published))}


def judge_pairs(verdicts: pd.DataFrame) -> list[Pair]:
    """Compare every two judges in a table from `load_verdicts`, on the items that both have judged.

    Verdicts are compared as yes or no; under rubrics that give scores only, as scores rounded to integers.

    Raises:
        RunError: Two judges judge under different rubrics.
    """
    found = []
    tables = {judge[0]: table.set_index(["key", "setting", "rubric"]) for judge, table in _groups(verdicts, ["judge"])}
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


def format_judge_scores(table: pd.DataFrame) -> str:
    """Format a table from `judge_scores` as text, with one line per judge, setting and rubric."""
    lines = []
    for names, group in _groups(table, ["judge", "setting"]):
        lines.append(f"{names[0]}, {names[1]}")
        for row in group.to_dict("records"):
            means = []
            if not np.isnan(row["accuracy"]):
                means.append(f"{row['accuracy']:5.1f} % [{row['accuracy_low']:.1f}, {row['accuracy_high']:.1f}]")
            if not np.isnan(row["score"]):
                means.append(f"score {row['score']:.2f} [{row['score_low']:.2f}, {row['score_high']:.2f}]")
                means.append(f"{row['published']:.2f} with scores truncated as published")
            counts = [f"{row[c]} {c.replace('_', ' ')}" for c in ("judged", "no_prediction") if row[c]]
            unknown = [f"{row[c]} {c}" for c in ("failed", "unjudged") if row[c]]
            if unknown:
                counts.append(f"{' and '.join(unknown)} are left out of the means")
            lines.append(f"  {row['rubric']:<8} {', '.join(means) or 'nothing judged'}; {', '.join(counts)}")
    return "\n".join(lines)


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
