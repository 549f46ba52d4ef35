"""Load run folders into one table of graded answers."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava.benchmarks.base import load_spec
from sfllava.benchmarks.spec import Spec
from sfllava.evaluators import find_evaluator
from sfllava.evaluators.base import Evaluator
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.files import printable
from sfllava.runs.identity import USUAL_TASKS
from sfllava.runs.run_folder import RunError, read_rows, read_run
from sfllava.runs.verdicts import (
    judge_names,
    read_items,
    read_verdicts,
    rubrics_by_type,
    verdict_key,
    verdicts_path,
)
from sfllava.types import Task

_TEXTS = ("run", "benchmark", "setting", "key", "video", "type", "reason")
_COLUMNS = {
    *_TEXTS, "name", "panel", "tokens", "seconds", "correct", "unparsable", "failed", "questions", "videos", "accuracy",
    "low", "high", "not_asked",
}  # fmt: skip
"""Names that this table, or a table made from it, has for something else than a group."""
COSTS = "costs.json"
Grade = Callable[[dict[str, Any]], tuple[bool, bool]]
"""Maps a row to whether its answer is correct, and whether it could be parsed."""


def load_results(runs: str | Path | Iterable[str | Path], judge: str | None = None) -> pd.DataFrame:
    """Load the graded answers of one or more run folders.

    Args:
        runs: One run folder, or several.
        judge: Name of the judge whose verdicts decide open questions; it must have judged all of them. Default: the
            strict offline rules.

    Returns:
        A table with one row per question and setting, and the columns run, benchmark, setting, key, video, type,
        tokens, correct, unparsable, failed, reason, seconds and name, and one for each group that questions have, such
        as duration, which is empty for the others. The name is the setting's, preceded by the run's if several runs on
        the benchmark have that setting. Failed and unparsable answers are not correct. `.attrs["runs"]` has each run's
        identity and measured costs. `.attrs["settings"]` has the number of rows of each setting, which may be 0.
        `.attrs["groups"]` has the names of the columns of groups.

    Raises:
        RunError: A benchmark or a question has no offline score, a run is given twice, a line is not a row, a group has
            the name of another column, or the judge has not judged all predictions.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    columns, facts = _Columns(), {}
    for folder, label in zip(folders, _labels(folders)):
        about = read_run(folder)
        identity = about["identity"]
        spec = load_spec(identity["benchmark"])
        grade = _grade_by_judge(folder, judge, spec) if judge else _grade_offline(folder, spec.task)
        facts[label] = identity | {"costs": _read_costs(folder)}
        for name in ("ablation", "headline_sizes"):
            said = [session[name] for session in about.get("sessions", []) if session.get(name)]
            facts[label][name] = said[-1] if said else None
        for row in read_rows(folder):
            columns.append(row, label, spec, grade, folder)
    table = columns.table()
    table.attrs["settings"] = _add_names(table, facts)
    table.attrs["runs"] = facts
    table.attrs["groups"] = columns.groups()
    return table


class _Columns:
    """The columns of a table of results, in compact arrays, since there may be a million rows."""

    def __init__(self) -> None:
        self._texts = {column: _TextColumn() for column in _TEXTS}
        self._groups: dict[str, _TextColumn] = {}
        self._numbers = {"tokens": array("d"), "seconds": array("d")}
        self._flags = {name: array("b") for name in ("correct", "unparsable", "failed")}

    def append(self, row: dict[str, Any], run: str, spec: Spec, grade: Grade, folder: Path) -> None:
        self._append_groups(row, folder)
        reason = row["error"] or ("no prediction" if row["prediction"] is None else "")
        correct, parsed = (False, True) if reason else grade(row)
        self._flags["correct"].append(correct)
        self._flags["unparsable"].append(not parsed)
        self._flags["failed"].append(bool(reason))
        seconds = row.get("seconds") or {}
        self._numbers["seconds"].append(sum(seconds.values()) if seconds else np.nan)
        tokens = row["visual_tokens"]
        self._numbers["tokens"].append(np.nan if tokens is None else tokens)
        self._texts["run"].append(run)
        self._texts["benchmark"].append(spec.name)
        for column in ("setting", "key", "video"):
            self._texts[column].append(row[column])
        self._texts["type"].append(spec.types.get(row["type"], row["type"]))
        self._texts["reason"].append(reason)

    def _append_groups(self, row: dict[str, Any], folder: Path) -> None:
        groups = row.get("groups") or {}
        if not isinstance(groups, dict) or not all(isinstance(value, str) for value in groups.values()):
            raise RunError(f"{folder}: question {row['key']}: groups must be texts by name, got {groups!r:.80}")
        for name in [name for name in groups if name not in self._groups]:
            if name in _COLUMNS or not name.isidentifier():
                where = f"{folder}: question {row['key']}"
                raise RunError(f"{where}: a group's name must be a word that is no other column, got {name!r:.80}")
            self._groups[name] = _TextColumn(len(self._flags["failed"]))
        for name, column in self._groups.items():
            column.append(groups.get(name, ""))

    def groups(self) -> list[str]:
        return list(self._groups)

    def table(self) -> pd.DataFrame:
        texts = self._texts | self._groups
        data: dict[str, Any] = {column: values.categories() for column, values in texts.items()}
        data |= {name: np.frombuffer(values) if values else np.empty(0) for name, values in self._numbers.items()}
        data |= {name: np.array(values, dtype=bool) for name, values in self._flags.items()}
        return pd.DataFrame(data)


def _add_names(table: pd.DataFrame, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Add the column `name`; return the number of rows of each setting, including settings without rows."""
    settings = [
        (identity["benchmark"], label, setting["name"])
        for label, identity in facts.items() for setting in identity.get("settings") or ()
    ]  # fmt: skip
    key = ["benchmark", "run", "setting"]
    pairs = list(table[key].drop_duplicates().astype(object).itertuples(index=False, name=None))
    names = _names([*pairs, *settings])
    categories = pd.Index(list(dict.fromkeys(names.values())), dtype=object)
    codes = categories.get_indexer([names[pair] for pair in pairs])
    # pair i is group i, since both are in the order of the rows
    groups = table.groupby(key, sort=False, observed=True).ngroup() if len(table) else np.empty(0, int)
    table["name"] = pd.Categorical.from_codes(codes[groups], categories=categories)
    counts = Counter(groups.tolist() if len(table) else [])
    rows = {pair: counts[i] for i, pair in enumerate(pairs)}
    return [
        {"benchmark": pair[0], "run": pair[1], "name": name, "rows": rows.get(pair, 0)} for pair, name in names.items()
    ]


class _TextColumn:
    """A column of texts that stores equal texts once; its first `empty` texts are empty."""

    def __init__(self, empty: int = 0) -> None:
        self._codes: dict[str, int] = {"": 0} if empty else {}
        self._values = array("i", [0]) * empty

    def append(self, text: str) -> None:
        self._values.append(self._codes.setdefault(text, len(self._codes)))

    def categories(self) -> pd.Categorical:
        codes = np.frombuffer(self._values, np.int32) if self._values else np.empty(0, np.int32)
        return pd.Categorical.from_codes(codes, categories=pd.Index(list(self._codes), dtype=object))


def _labels(folders: list[Path]) -> list[str]:
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"a run was given twice: {', '.join(map(str, folders))}")
    if not folders:
        raise RunError("needed a run folder, got none")
    names = [printable(folder.resolve().name) for folder in folders]
    return names if len(set(names)) == len(names) else [printable(str(folder)) for folder in folders]


def _names(pairs: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """Return the name of each setting, by (benchmark, run, setting)."""
    known = list(dict.fromkeys(pairs))
    # a setting may have one run per benchmark; if two runs on one benchmark have it, they need different names
    often = Counter((benchmark, setting) for benchmark, _, setting in known)
    again = {setting for (_, setting), count in often.items() if count > 1}
    return {pair: f"{pair[1]}: {pair[2]}" if pair[2] in again else pair[2] for pair in known}


def _grade_offline(folder: Path, task: Task) -> Grade:
    """Return the strict offline rule of each row's task; `task` is the benchmark's."""
    if find_evaluator(task) is None:
        raise RunError(f"{folder}: no offline score for a {task} benchmark; its predictions need a judge")
    known: dict[str, Evaluator | None] = {}

    def grade(row: dict[str, Any]) -> tuple[bool, bool]:
        own = _task_of(row, task)
        if own not in known:
            known[own] = find_evaluator(own)
        evaluator = known[own]
        if evaluator is None:
            raise RunError(f"{folder}: question {row['key']}: no offline score for a {own} question; it needs a judge")
        return evaluator.grade_quickly(row["answer"], row.get("options") or (), row["prediction"])

    return grade


def _task_of(row: dict[str, Any], task: Task) -> Task:
    """Return the task of a row: its own, or one that the benchmark's name and the options tell."""
    return row.get("task") or (task if task in USUAL_TASKS else "choice" if row.get("options") else "open")


def _grade_by_judge(folder: Path, judge: str, spec: Spec) -> Grade:
    """Return a rule that looks up a judge's verdicts; these can always be parsed."""
    chosen = rubrics_by_type(folder)
    if any(len(names) != 1 or not load_rubric(names[0]).gives_correct for names in chosen.values()):
        listed = ", ".join(name for names in chosen.values() for name in names)
        raise RunError(
            f"{folder}: needed a rubric that says whether an answer is correct, got {listed} of {spec.name}; see its "
            "scores with `sfllava judges`"
        )
    path = verdicts_path(folder, judge)
    if not path.exists():
        raise RunError(f"{path}: no verdicts by this judge; there are {', '.join(judge_names(folder)) or 'none'}")
    verdicts = {verdict_key(row): row for row in read_verdicts(path)}
    right: dict[tuple[str, str], bool] = {}
    waiting = stale = 0
    for item in read_items(folder):
        if item.request is None:  # inference failed: wrong without asking a judge
            continue
        verdict = verdicts.get(item.row_key)
        if verdict is None or verdict["error"] is not None:
            waiting += 1
        elif verdict["content"] != item.request.content:
            stale += 1
        else:
            right[item.key, item.setting] = bool(verdict["correct"])
    if waiting or stale:
        counts = [f"{waiting:,} predictions have no verdict yet, or a failed one"] * bool(waiting)
        counts += [f"{stale:,} verdicts are on other predictions than those in the run now"] * bool(stale)
        raise RunError(
            f"{path}: {', and '.join(counts)}: judge again, or see the verdicts so far with `sfllava judges`"
        )
    return lambda row: (right[row["key"], row["setting"]], True)


def _read_costs(folder: Path) -> dict[str, Any]:
    file = folder / COSTS
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: not JSON: {error}") from error
