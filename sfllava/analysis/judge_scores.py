"""The verdicts of a run's judges as a table, and the scores that each judge gives.

All intervals are 95 % and clustered by video, as in `results`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.analysis.loading import as_categorical
from sfllava.benchmarks.base import load_spec
from sfllava.benchmarks.spec import Headline
from sfllava.display.text import terminal_width
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.runs.coded import Coded, CodedColumn, combine
from sfllava.runs.judge_items import JudgeItems, rubrics_by_type
from sfllava.runs.run_folder import RunError, read_run
from sfllava.runs.verdicts import MatchedVerdicts, judge_names, match_verdicts, verdicts_path

_STATES = ("judged", "no prediction", "failed", "unjudged")
_JUDGED, _NO_PREDICTION, _FAILED, _UNJUDGED = range(4)
_PUBLISHED_SCALE = (0.0, 5.0)
_UNKNOWN = stats.Estimate(np.nan, np.nan, np.nan, np.nan, 0, 0)


def load_verdicts(run: str | Path, judges: Sequence[str] = ()) -> pd.DataFrame:
    """Load the verdicts of a run's judges.

    Args:
        run: The run folder.
        judges: The names of the judges. Default: all judges that have verdicts in the run.

    Returns:
        One row per judge and item, with the columns judge, key, setting, rubric, video, type, question, answer,
        prediction, correct, score and state. The state is "judged"; "no prediction" if inference failed, which counts
        as wrong and as the lowest score of the rubric; "failed" if the judge failed; or "unjudged". In the last two,
        correct and score are missing. `.attrs` has the benchmark's rubrics by type of question, and its headline.

    Raises:
        RunError: A judge has no verdicts in the run, or a line of its file is not a verdict.
    """
    items = JudgeItems(run)
    available = judge_names(run)
    if missing := sorted(set(judges) - set(available)):
        raise RunError(f"{run}: no verdicts by {', '.join(missing)}; there are {', '.join(available) or 'none'}")
    names = list(judges or available)
    contents, columns = items.contents(), _columns_of(items)
    found = [_verdict_columns(items, match_verdicts(items, contents, verdicts_path(run, name))) for name in names]
    size = len(items)
    data: dict[str, Any] = {"judge": as_categorical(Coded(np.repeat(np.arange(len(names)), size), names))}
    for name, column in columns.items():
        data[name] = as_categorical(Coded(np.tile(column.codes, len(names)), column.values))
    state = np.concatenate([np.empty(0, int), *(each[2] for each in found)])
    correct, score = (np.concatenate([np.empty(0), *(each[i] for each in found)]) for i in range(2))
    unknown = np.isnan(correct)
    decided = pd.arrays.BooleanArray(np.where(unknown, 0, correct).astype(bool), unknown)
    data |= {"correct": decided, "score": score, "state": as_categorical(Coded(state, _STATES))}
    table = pd.DataFrame(data)
    spec, chosen = load_spec(read_run(run)["identity"]["benchmark"]), rubrics_by_type(run)
    scored = not any(load_rubric(name).gives_correct for names in chosen.values() for name in names)
    table.attrs = {"rubrics": chosen, "headline": spec.headline if scored else None}
    return table


def _columns_of(items: JudgeItems) -> dict[str, Coded]:
    """Return what the table says of each item, whoever judges it."""
    rows, names = items.rows, [rubric.name for rubric in items.rubrics]
    found = {"key": items.keys, "setting": rows["setting"].take(items.first), "rubric": Coded(items.rubric, names)}
    found |= {name: rows[name].take(items.first) for name in ("video", "type")}
    pairs = np.flatnonzero(np.array([rubric.pair for rubric in items.rubrics], bool)[items.rubric])
    for name in ("question", "answer", "prediction"):
        texts = rows[name].take(items.first)
        codes, values = texts.codes, list(texts.values)
        if name != "answer":
            both, one_of_each = combine(codes[pairs], rows[name].codes[items.second[pairs]])
            codes[pairs] = len(values) + both
            values += [
                f"{rows[name].at(items.first[pair])} / {rows[name].at(items.second[pair])}"
                for pair in pairs[one_of_each]
            ]
        found[name] = Coded(np.where(items.failed, len(values), codes), [*values, ""])
    return {name: _distinct(column) for name, column in found.items()}


def _distinct(column: Coded) -> Coded:
    """Return a column without equal or unused values, which categories must not have."""
    grown = CodedColumn()
    grown.append(column)
    return grown.column()


def _verdict_columns(items: JudgeItems, found: MatchedVerdicts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (N) correct, (N) score and (N) the state of each item, as an index of `_STATES`."""
    least = [rubric.head.scale[0] if rubric.head.scale else np.nan for rubric in items.rubrics]
    wrong = [0.0 if rubric.gives_correct else np.nan for rubric in items.rubrics]
    current = found.given & ~found.stale
    state = np.where(current, np.where(found.failed, _FAILED, _JUDGED), _UNJUDGED)
    state[items.failed] = _NO_PREDICTION
    verdicts = ((found.correct, wrong), (found.score, least))
    correct, score = (
        np.where(items.failed, np.array(otherwise, float)[items.rubric], np.where(state == _JUDGED, value, np.nan))
        for value, otherwise in verdicts
    )
    return correct, score, state


def judge_scores(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Compute the scores that each judge gives.

    Args:
        verdicts: A table from `load_verdicts`.

    Returns:
        One row per judge, setting and rubric, with the counts questions, judged, no_prediction, failed and unjudged;
        accuracy (percent) and score (on the rubric's scale) with the ends of their intervals, _low and _high; and
        published. Accuracy and score leave out the questions that are failed or unjudged, since their verdicts are
        unknown. published is the mean score as the published evaluation computes it: over the judged questions, with
        scores truncated to integers; for rubrics from 0 to 5. A benchmark with a headline has a further row with its
        name, such as `average` for VCGBench. `missing` names the rubrics that it needs and that judge no question of
        the run; it then has no score.
    """
    rows = []
    headline = verdicts.attrs.get("headline")
    for (judge, setting), group in _by_judge_and_setting(verdicts):
        about = {"judge": judge, "setting": setting, "missing": ""}
        for rubric, part in group.groupby("rubric", sort=False, observed=True):
            rows.append(about | {"rubric": rubric} | _scores_of(part, load_rubric(str(rubric)).head.scale))
        if headline is not None:
            rows.append(about | {"rubric": headline.name} | _headline_of(group, headline, verdicts.attrs["rubrics"]))
    return pd.DataFrame(rows)


def _by_judge_and_setting(table: pd.DataFrame) -> Any:
    return table.groupby(["judge", "setting"], sort=False, observed=True)


def _scores_of(part: Any, scale: tuple[float, float] | None) -> dict[str, Any]:
    known: Any = part[part["state"].isin(["judged", "no prediction"])]
    videos = known["video"].cat.codes.to_numpy()
    decided = known["correct"].notna().all() and len(known) > 0
    found = stats.proportion(known["correct"].to_numpy(float), videos) if decided else _UNKNOWN
    out: dict[str, Any] = {"questions": len(part), **_counts(part["state"])}
    out |= {"accuracy": 100 * found.mean, "accuracy_low": 100 * found.low, "accuracy_high": 100 * found.high}
    scored = scale is not None and known["score"].notna().all() and len(known) > 0
    found = stats.mean(known["score"].to_numpy(float), videos, *scale) if scale and scored else _UNKNOWN
    return out | _score(found) | {"published": _published(part) if scored and scale == _PUBLISHED_SCALE else np.nan}


def _score(found: stats.Estimate, factor: float = 1.0) -> dict[str, float]:
    return {"score": factor * found.mean, "score_low": factor * found.low, "score_high": factor * found.high}


def _published(part: Any) -> float:
    judged: Any = part[part["state"] == "judged"]["score"].to_numpy(float)
    return float(np.trunc(judged).mean()) if len(judged) else np.nan


def _counts(states: Any) -> dict[str, int]:
    names = {"judged": "judged", "no_prediction": "no prediction", "failed": "failed", "unjudged": "unjudged"}
    counts = states.value_counts()
    return {column: int(counts.get(state, 0)) for column, state in names.items()}


def _headline_of(group: Any, headline: Headline, rubrics: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the mean over groups of the sums of their rubrics' mean scores, with its interval."""
    wanted = [(kind, name) for kind, names in rubrics.items() for name in names]
    kinds = [kind if kind in rubrics else "" for kind in group["type"].cat.categories]
    numbers, rows = combine(group["type"].cat.codes.to_numpy(), group["rubric"].cat.codes.to_numpy())
    types, judged_by = (group[name].iloc[rows] for name in ("type", "rubric"))
    labels = pd.Index([f"{kinds[kind]}\n{rubric}" for kind, rubric in zip(types.cat.codes, judged_by)])
    numbers, labels = labels.factorize()[0][numbers], labels.unique()  # several types may count as ""
    there = set(labels)
    out = {"questions": len(group), **_counts(group["state"]), **_score(_UNKNOWN), "published": np.nan}
    out |= dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"), np.nan)
    out["missing"] = ", ".join(name for kind, name in wanted if f"{kind}\n{name}" not in there)
    known = group["state"].isin(["judged", "no prediction"]) & group["score"].notna()
    known = known.to_numpy()
    if set(labels[np.unique(numbers[known])]) != {f"{kind}\n{name}" for kind, name in wanted}:
        return out
    scales = [load_rubric(name).head.scale or _PUBLISHED_SCALE for _, name in wanted]
    low, high = min(scale[0] for scale in scales), max(scale[1] for scale in scales)
    scores, videos = group["score"][known].to_numpy(float), group["video"].cat.codes.to_numpy()[known]
    found = stats.group_mean(scores, numbers[known], videos, low, high)
    groups = len(wanted) if headline.groups == ("rubric",) else len(rubrics)
    if set(scales) == {_PUBLISHED_SCALE}:
        out["published"] = (
            float(np.mean([_published(part) for _, part in group.groupby(numbers)])) * len(wanted) / groups
        )
    return out | _score(found, len(wanted) / groups)


def format_judge_scores(table: pd.DataFrame) -> str:
    """Format a table from `judge_scores` as text, with one line per judge, setting and rubric."""
    lines = []
    width = max(8, *map(len, table["rubric"]))
    for (judge, setting), group in _by_judge_and_setting(table):
        lines.append(f"{judge}, {setting}")
        for row in group.to_dict("records"):
            means = []
            if not np.isnan(row["accuracy"]):
                means.append(f"{row['accuracy']:5.1f} % [{row['accuracy_low']:.1f}, {row['accuracy_high']:.1f}]")
            if not np.isnan(row["score"]):
                means.append(f"score {row['score']:.2f} [{row['score_low']:.2f}, {row['score_high']:.2f}]")
            if not np.isnan(row["published"]):
                means.append(f"{row['published']:.2f} with scores truncated as published")
            counts = [f"{row[c]} {c.replace('_', ' ')}" for c in ("judged", "no_prediction") if row[c]]
            unknown = [f"{row[c]} {c}" for c in ("failed", "unjudged") if row[c]]
            if unknown:
                counts.append(f"{' and '.join(unknown)} are left out of the means")
            if row["missing"]:
                lines.append(f"  {row['rubric']:<{width}} none: no question of this run is judged by {row['missing']}")
                continue
            line, more = f"  {row['rubric']:<{width}} {', '.join(means) or 'nothing judged'};", ", ".join(counts)
            fits = len(line) + 1 + len(more) <= terminal_width()
            lines += [f"{line} {more}"] if fits else [line, " " * (width + 3) + more]
    return "\n".join(lines)
