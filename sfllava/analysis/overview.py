"""All runs below a folder as one table, from their run.json and scores.json; rows are read only where those lack."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportAssignmentType=false

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.analysis.judge_summary import judge_score_rows
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy
from sfllava.analysis.score_intervals import intervals
from sfllava.catalogue import unknown_name
from sfllava.runs.summary import RunSummary, read_summary
from sfllava.types import SfllavaError

COLUMNS = (
    "run", "benchmark", "model", "setting", "tokens", "n", "accuracy", "low", "high", "score", "judge", "state", "done",
    "questions", "total", "date", "problem",
)  # fmt: skip
_LARGEST_FIRST = ("tokens", "n", "accuracy", "low", "high", "score", "done", "questions", "total", "date")


def load_runs(folder: str | Path = ".") -> pd.DataFrame:
    """Read all runs below a folder; links are not followed out of it.

    Args:
        folder: The folder; it may be a run itself.

    Returns:
        One row per run and setting, and per judge where there are verdicts, with the columns:
        run: The path of its folder, below `folder`.
        benchmark, model, setting, tokens: What was asked; tokens are the visual tokens of the setting.
        n: The questions that accuracy and score cover, of the `questions` that the run asks at each setting.
        accuracy, low, high: By the strict offline rules, or by the judge, with the 95 % interval, in percent.
        score: The judge's mean score, on the scale of its rubric, or the sum that the benchmark reports.
        judge: The name of the judge; empty for the offline rules.
        state: complete, running or unfinished; judging where verdicts are missing; unreadable where something cannot be
            read, and `problem` then says what and why.
        done, total: The rows that there are, and those of the complete run, over all its settings; where state is
            judging, the verdicts at this setting.
        date: When the run was last started, in UTC.

    Raises:
        SfllavaError: There is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SfllavaError(f"{root}: needed a folder with runs, got {'a file' if root.exists() else 'no such folder'}")
    rows = [row for run in find_runs(root) for row in _rows(run)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("tokens", "n", "done", "questions", "total"):
        table[column] = pd.array(table[column].tolist(), dtype="Int64")
    for column in ("accuracy", "low", "high", "score"):
        table[column] = table[column].astype(float)
    return table


def find_runs(root: Path) -> Iterator[RunSummary]:
    """Yield a summary of each run below a folder, and of each folder that looks like one or cannot be read."""
    unreadable: list[OSError] = []
    for path, folders, files in os.walk(root, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "run.json" in files or "predictions.jsonl" in files:
            yield read_summary(Path(path), root)
    for error in unreadable:
        name = os.path.relpath(str(error.filename), root)
        yield RunSummary(Path(str(error.filename)), name, problem=f"cannot be read: {error.strerror}")


def _rows(run: RunSummary) -> list[dict[str, Any]]:
    """Return the rows of a run."""
    problem = run.problem
    about = {
        "run": run.name, "benchmark": run.benchmark, "model": run.model, "setting": "", "judge": "", "state": run.state,
        "done": run.done, "questions": run.questions, "total": run.total, "date": run.date, "problem": "",
    }  # fmt: skip
    if problem and not run.settings:
        return [about | {"state": "unreadable", "problem": problem}]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for judge in run.judges:
        try:
            found |= _by_judge(run.path, judge)
        except Exception as error:  # whatever is wrong with one run, the others are shown
            problem = problem or _reason(error)
    if not run.judges:
        try:
            found = _offline(run)
        except Exception as error:
            problem = problem or _reason(error)
    rows = []
    for name, tokens in run.settings.items():
        own = [{"judge": judge} | each for (setting, judge), each in found.items() if setting == name] or [{}]
        rows += [about | {"setting": name, "tokens": tokens, "problem": problem} | each for each in own]
    rows = rows or [about | {"problem": problem}]
    return [row | {"state": "unreadable"} for row in rows] if problem else rows


def _offline(run: RunSummary) -> dict[tuple[str, str], dict[str, Any]]:
    """Return n and accuracy of each setting by the offline rules; empty where only a judge can score."""
    if run.scores is not None:
        if any(not score["rules"] or score.get("unscored") for score in run.scores.values()):
            return {}
        known = intervals(run.scores)
        if run.scores and known.keys() == run.scores.keys():
            return {
                (name, ""): {"n": run.asked(name), "accuracy": mean, "low": low, "high": high}
                for name, (mean, low, high) in known.items()
            }
    if run.needs_judge or not run.done:
        return {}
    table = accuracy(load_results(run.path)).rename(columns={"questions": "n"})
    return {
        (row["name"], ""): {column: row[column] for column in ("n", "accuracy", "low", "high")}
        for row in table.to_dict("records")
        if row["n"]
    }


def _by_judge(path: Path, judge: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return n, accuracy and score of each setting by a judge, and the state if verdicts are missing."""
    by_setting: dict[str, list[dict[str, Any]]] = {}
    for row in judge_score_rows(path, judge):
        by_setting.setdefault(row["setting"], []).append(row)
    found = {}
    for setting, rows in by_setting.items():
        row = rows[-1]  # with a headline, its row is the last one and stands for all rubrics
        judged = int(row["judged"] + row["no_prediction"])
        about = {"n": int(row["questions"]), "score": row["score"]}
        if len(rows) == 1:
            about |= {"accuracy": row["accuracy"], "low": row["accuracy_low"], "high": row["accuracy_high"]}
        if judged < row["questions"]:
            about |= {"state": "judging", "n": judged, "done": judged, "total": int(row["questions"])}
        found[setting, judge] = about
    return found


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, SfllavaError) else f"{type(error).__name__}: {text}"


def filter_runs(table: pd.DataFrame, conditions: Iterable[str]) -> pd.DataFrame:
    """Keep the rows of `load_runs` that fulfil all conditions.

    Args:
        table: The table.
        conditions: COLUMN=TEXT each: the column contains the text, in upper or lower case; with * or ? in it, all of
            the column matches it.

    Raises:
        SfllavaError: A condition has another form, or there is no such column.
    """
    for condition in conditions:
        column, equals, wanted = condition.partition("=")
        if not equals:
            raise SfllavaError(f"--filter {condition}: needed COLUMN=TEXT, such as model=7b")
        _check_column(table, column)
        pattern = wanted.lower() if any(c in wanted for c in "*?") else f"*{_literal(wanted.lower())}*"
        shown = ["" if pd.isna(value) else str(value).lower() for value in table[column]]
        table = table.loc[[fnmatch.fnmatchcase(text, pattern) for text in shown]]
    return table


def sort_runs(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Sort the rows of `load_runs`: numbers and dates from the largest, texts from A; missing values come last.

    Raises:
        SfllavaError: There is no such column.
    """
    _check_column(table, column)
    values = pd.Series(
        [None if isinstance(value, str) and not value else value for value in table[column]], dtype=object
    )
    known = values[values.notna()].sort_values(ascending=column not in _LARGEST_FIRST, kind="stable")
    return table.iloc[[*known.index, *values.index[values.isna()]]]


def _check_column(table: pd.DataFrame, column: str) -> None:
    if column not in table:
        raise SfllavaError(unknown_name("column", column, COLUMNS))


def _literal(text: str) -> str:
    return text.replace("[", "[[]")
