"""What the judges of a run say, side by side: scores by judge, and how far they agree on the same predictions.

Intervals are 95 % and clustered by video, as in `results`; kappa's by the jackknife, which leaves
out one video at a time.
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
_SCORES = (0.0, 5.0)  # the least and the greatest
_NOTHING = stats.Estimate(np.nan, np.nan, np.nan, np.nan, 0, 0)


@dataclass(frozen=True)
class Pair:
    """Two judges on what both have judged: `confusion[said by one][said by the other]`."""

    one: str
    other: str
    both: int
    agree: float
    kappa: tuple[float, float, float]
    """Cohen's, with its interval; of scores, with quadratic weights. NaN where both always say the same."""
    confusion: pd.DataFrame


def load_verdicts(run: str | Path, judges: Sequence[str] = ()) -> pd.DataFrame:
    """A row a judge and unit: judge, key, setting, rubric, video, question, answer, prediction, correct, score, state.

    state: judged; no prediction (inference failed: wrong, and 0); failed (the judge did: nobody knows); unjudged.
    """
    units = read_items(run)
    there = judge_names(run)
    if missing := sorted(set(judges) - set(there)):
        raise RunError(f"{run}: no verdicts by {', '.join(missing)}; there are {', '.join(there) or 'none'}")
    rows = []
    for judge in judges or there:
        verdicts = {verdict_key(row): row for row in read_verdicts(verdicts_path(run, judge))}
        for unit in units:
            row = verdicts.get(unit.row_key)
            if row and (unit.request is None or row["content"] != unit.request.content):
                row = None  # of a prediction that is no more
            state = "no prediction" if unit.request is None else "unjudged" if row is None else "judged"
            if row and row["error"]:
                state = "failed"
            wrong, said = state == "no prediction", row if row and state == "judged" else {}
            rows.append(
                {
                    "judge": judge,
                    "key": unit.key,
                    "setting": unit.setting,
                    "rubric": unit.rubric,
                    "video": unit.video,
                    "question": " / ".join(unit.request.questions) if unit.request else "",
                    "answer": unit.request.reference if unit.request else "",
                    "prediction": " / ".join(unit.request.predictions) if unit.request else "",
                    "correct": False if wrong and unit.rubric == "open" else said.get("correct"),
                    "score": 0.0 if wrong else said.get("score"),
                    "state": state,
                }
            )
    return pd.DataFrame(rows)


def judge_scores(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Of each judge, setting and rubric: questions, judged, no_prediction, failed, unjudged, and means with intervals.

    accuracy (percent) and score (0 to 5) are over all questions but those on which the judge failed or has not said
    anything: of these nobody knows. `published` is the mean as the published evaluation has it: scores cut to whole
    numbers, and what failed left out. Of VCGBench a row `average` is the mean of the five.
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
    found = stats.proportion(known["correct"].to_numpy(float), videos) if decided else _NOTHING
    out |= {"accuracy": 100 * found.mean, "accuracy_low": 100 * found.low, "accuracy_high": 100 * found.high}
    scored = known["score"].notna().all() and len(known) > 0
    found = stats.mean(known["score"].to_numpy(float), videos, *_SCORES) if scored else _NOTHING
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
    # each score by its pull on the average: then the interval of a mean is the average's, rubrics of a video together
    weight = len(known) / len(RUBRICS) / known.groupby("rubric")["score"].transform("size")
    middle = float(np.mean(means))
    pulls = middle + (known["score"].astype(float) - known["rubric"].map(means)) * weight
    found = stats.mean(pulls.to_numpy(float), known["video"].to_numpy(str), *_SCORES)
    judged: Any = group[group["state"] == "judged"]
    published = [float(np.trunc(judged[judged["rubric"] == r]["score"].to_numpy(float)).mean()) for r in RUBRICS]
    score = {"score": middle, "score_low": found.low, "score_high": found.high}
    return out | nothing | score | {"published": float(np.mean(published))}


def judge_pairs(verdicts: pd.DataFrame) -> list[Pair]:
    """Each two judges on all that both have judged: yes and no, or where there is a score alone its whole numbers."""
    found = []
    tables = {judge[0]: table.set_index(["key", "setting", "rubric"]) for judge, table in _groups(verdicts, ["judge"])}
    for one, other in combinations(tables, 2):
        joined = tables[one].join(tables[other], rsuffix="_other")
        joined: Any = joined[(joined["state"] == "judged") & (joined["state_other"] == "judged")]
        decided = joined["correct"].notna() & joined["correct_other"].notna()
        if len(joined) and decided.all():
            labels, column = ["no", "yes"], "correct"
            said = [joined[c].to_numpy(int) for c in (column, f"{column}_other")]
        elif joined["score"].notna().all() and joined["score_other"].notna().all():
            labels = [str(i) for i in range(6)]
            said = [np.floor(joined[c].to_numpy(float) + 0.5).astype(int) for c in ("score", "score_other")]
        else:
            raise RunError(f"{one} and {other} judge under different rubrics: they cannot be compared")
        found.append(_pair(one, other, said, joined["video"].to_numpy(str), labels))
    return found


def _pair(one: str, other: str, said: list[np.ndarray], videos: np.ndarray, labels: list[str]) -> Pair:
    k = len(labels)
    names, owner = np.unique(videos, return_inverse=True)
    tables = np.zeros((len(names), k * k))
    np.add.at(tables, (owner, said[0] * k + said[1]), 1)
    whole = tables.sum(0).reshape(k, k)
    found = kappa_interval(tables, k)
    confusion = pd.DataFrame(whole.astype(int), pd.Index(labels, name=one), pd.Index(labels, name=other))
    agree = float(np.trace(whole) / whole.sum()) if whole.sum() else float("nan")
    return Pair(one, other, int(whole.sum()), agree, found, confusion)


def kappa_interval(tables: np.ndarray, k: int) -> tuple[float, float, float]:
    """Kappa of the confusion tables (N k*k) of N videos together, with the ends of its interval.

    A t interval of log(1 - kappa) by the jackknife over videos. Where the judges always agree, the lower end allows for
    the videos that a sample of this size may have missed (`stats.unseen`).
    """
    whole = tables.sum(0)
    middle = float(kappa(whole.reshape(1, k, k))[0])
    if np.isnan(middle) or len(tables) < 2:
        return middle, *((np.nan, np.nan) if np.isnan(middle) else (-1.0, 1.0))
    if middle > 1 - 1e-9:
        said = whole.reshape(k, k).sum(0) / whole.sum()
        weights = np.subtract.outer(np.arange(k), np.arange(k)) ** 2.0
        worst = weights[np.ix_(said > 0, said > 0)].max()
        return middle, max(-1.0, 1 - stats.unseen(len(tables)) * worst / float(said @ weights @ said)), 1.0
    without = kappa((whole - tables).reshape(-1, k, k))
    # without one video the judges may always say the same, or always agree: that is no reason for an infinite error
    logs = np.log(np.maximum(1 - np.where(np.isnan(without), middle, without), 1e-3 * (1 - middle)))
    error = np.sqrt((len(tables) - 1) / len(tables) * ((logs - logs.mean()) ** 2).sum())
    reach = stats.t_quantile(0.975, len(tables)) * error
    ends = 1 - (1 - middle) * np.exp([reach, -reach])
    return middle, max(-1.0, float(ends[0])), min(1.0, float(ends[1]))


def kappa(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of confusion tables (N k k), of more than two labels quadratically weighted; NaN if undefined."""
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
    """The questions on which judges differ: yes against no, or more than one point of score; a column a judge."""
    judged: Any = verdicts[verdicts["state"] == "judged"]
    about = ["key", "setting", "rubric", "question", "answer", "prediction"]
    decided = judged["correct"].notna().all()
    said = judged.assign(said=judged["correct"].map({True: "yes", False: "no"}) if decided else judged["score"])
    wide = said.pivot(index=about, columns="judge", values="said")
    if decided:
        return wide[wide.nunique(axis=1) > 1].reset_index()
    wide = wide.astype(float)
    return wide[wide.max(axis=1) - wide.min(axis=1) > 1].reset_index()


def format_judge_scores(table: pd.DataFrame) -> str:
    """A line a judge, setting and rubric."""
    lines = []
    for names, group in _groups(table, ["judge", "setting"]):
        lines.append(f"{names[0]}, {names[1]}")
        for row in group.to_dict("records"):
            said = []
            if not np.isnan(row["accuracy"]):
                said.append(f"{row['accuracy']:5.1f} % [{row['accuracy_low']:.1f}, {row['accuracy_high']:.1f}]")
            if not np.isnan(row["score"]):
                said.append(f"score {row['score']:.2f} [{row['score_low']:.2f}, {row['score_high']:.2f}]")
                said.append(f"{row['published']:.2f} by the published whole numbers")
            counts = [f"{row[c]} {c.replace('_', ' ')}" for c in ("judged", "no_prediction") if row[c]]
            unknown = [f"{row[c]} {c}" for c in ("failed", "unjudged") if row[c]]
            if unknown:
                counts.append(f"{' and '.join(unknown)} are in no mean")
            lines.append(f"  {row['rubric']:<8} {', '.join(said) or 'nothing judged'}; {', '.join(counts)}")
    return "\n".join(lines)


def format_pairs(found: Sequence[Pair]) -> str:
    """Agreement, kappa and the confusion table of each pair."""
    lines = []
    for pair in found:
        middle, low, high = pair.kappa
        said = "undefined (both always say the same)" if np.isnan(middle) else f"{middle:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"{pair.one} and {pair.other}: {pair.both} judged by both, kappa {said}")
        if pair.both:
            lines.append(f"  the same on {100 * pair.agree:.1f} %; rows {pair.one}, columns {pair.other}:")
            table = pair.confusion.rename_axis(None).rename_axis(None, axis=1).to_string()
            lines += [f"    {line}" for line in table.split("\n")]
    return "\n".join(lines)
