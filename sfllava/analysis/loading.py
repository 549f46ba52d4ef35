"""Load run folders into one table of graded answers."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
from sfllava.runs.coded import Block, Coded, CodedColumn, combine
from sfllava.runs.identity import USUAL_TASKS
from sfllava.runs.judge_items import JudgeItems, rubrics_by_type
from sfllava.runs.run_folder import RunError, read_row_blocks, read_run
from sfllava.runs.verdicts import judge_names, match_verdicts, verdicts_path
from sfllava.types import Task

_TEXTS = ("run", "benchmark", "setting", "key", "video", "type", "reason")
_COLUMNS = {
    *_TEXTS, "name", "panel", "tokens", "seconds", "correct", "empty", "unparsable", "failed", "questions", "videos",
    "accuracy", "low", "high", "not_asked",
}  # fmt: skip
"""Names that this table, or a table made from it, has for something else than a group."""
COSTS = "costs.json"
_OTHERS = {"tokens": float, "seconds": float, "correct": bool, "empty": bool, "unparsable": bool, "failed": bool}
Grade = Callable[[Block, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps a block and the indices of its rows with an answer to whether each of all its rows is correct, and parsed."""


def load_results(runs: str | Path | Iterable[str | Path], judge: str | None = None) -> pd.DataFrame:
    """Load the graded answers of one or more run folders.

    Args:
        runs: One run folder, or several.
        judge: Name of the judge whose verdicts decide open questions; it must have judged all of them. Default: the
            strict offline rules.

    Returns:
        A table with one row per question and setting, and the columns run, benchmark, setting, key, video, type,
        tokens, correct, empty, unparsable, failed, reason, seconds and name, and one for each group that questions
        have, such as duration, which is empty for the others. The name is the setting's, preceded by the run's if
        several runs on the benchmark have that setting. Failed and unparsable answers are not correct; an answer
        without any text is empty, and not unparsable. `.attrs["runs"]` has each run's identity, measured costs and
        last session. `.attrs["settings"]` has the number of rows of each setting, which may be 0. `.attrs["groups"]`
        has the names of the columns of groups.

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
        if judge:
            whole, grade = _grade_by_judge(folder, judge, spec)
            blocks = [whole]
        else:
            blocks, grade = read_row_blocks(folder), _grade_offline(folder, spec.task)
        facts[label] = identity | {"costs": _read_costs(folder)}
        for name in ("ablation", "headline_sizes"):
            said = [session[name] for session in about.get("sessions", []) if session.get(name)]
            facts[label][name] = said[-1] if said else None
        facts[label]["session"] = _describe_sessions(about.get("sessions", []))
        for block in blocks:
            columns.append(block, label, spec, grade, folder)
    table = columns.table()
    table.attrs["settings"] = _add_names(table, facts)
    table.attrs["runs"] = facts
    table.attrs["groups"] = columns.groups()
    return table


def _describe_sessions(sessions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a report says of a run's sessions: the last one's facts, and when the first one started."""
    last = dict(sessions[-1]) if sessions else {}
    last.pop("question_flaws", None)  # may be long, and nothing here shows it
    return last | {"first_started": (sessions[0] if sessions else {}).get("started")}


class _Columns:
    """The columns of a table of results, which grow by blocks."""

    def __init__(self) -> None:
        self._texts = {column: CodedColumn() for column in _TEXTS}
        self._groups: dict[str, CodedColumn] = {}
        self._others: list[dict[str, np.ndarray]] = []
        self._rows = 0

    def append(self, block: Block, run: str, spec: Spec, grade: Grade, folder: Path) -> None:
        rows = len(block["key"])
        self._append_groups(block, folder)
        reasons = _reasons(block)
        failed = reasons.map([bool(text) for text in [*reasons.values, ""]], bool)
        correct, parsed = grade(block, np.flatnonzero(~failed))
        others = {"tokens": block["visual_tokens"], "seconds": block["seconds"]}
        said = block["prediction"]
        empty = said.map([not str(text).strip() for text in [*said.values, "-"]], bool) & ~failed
        others |= {"correct": correct, "empty": empty, "unparsable": ~parsed & ~failed & ~empty, "failed": failed}
        self._others.append(others)
        for column, value in (("run", run), ("benchmark", spec.name)):
            self._texts[column].append_value(value, rows)
        types = Coded(block["type"].codes, [spec.types.get(kind, kind) for kind in block["type"].values])
        for column in ("setting", "key", "video"):
            self._texts[column].append(block[column])
        self._texts["type"].append(types)
        self._texts["reason"].append(reasons)
        self._rows += rows

    def _append_groups(self, block: Block, folder: Path) -> None:
        column = block["groups"]
        found = [column.values[code] or {} for code in column.first_rows()]
        for groups, row in zip(found, column.first_rows().values()):
            where = f"{folder}: question {block['key'].at(row)}"
            if not isinstance(groups, dict) or not all(isinstance(value, str) for value in groups.values()):
                raise RunError(f"{where}: groups must be texts by name, got {groups!r:.80}")
            for name in [name for name in groups if name not in self._groups]:
                if name in _COLUMNS or not name.isidentifier():
                    raise RunError(f"{where}: a group's name must be a word that is no other column, got {name!r:.80}")
                self._groups[name] = CodedColumn()
                self._groups[name].append_value("", self._rows)
        for name, texts in self._groups.items():
            values = [(groups or {}).get(name, "") for groups in [*column.values, None]]
            texts.append(Coded(np.where(column.codes < 0, len(values) - 1, column.codes), values))

    def groups(self) -> list[str]:
        return list(self._groups)

    def table(self) -> pd.DataFrame:
        texts = self._texts | self._groups
        data: dict[str, Any] = {name: as_categorical(column.column()) for name, column in texts.items()}
        for name, kind in _OTHERS.items():
            data[name] = np.concatenate([np.empty(0, kind), *(block[name] for block in self._others)])
        return pd.DataFrame(data)


def as_categorical(column: Coded) -> pd.Categorical:
    """Return a column as pandas has it."""
    return pd.Categorical.from_codes(column.codes, categories=pd.Index(column.values, dtype=object))


def codes_of(column: pd.Series) -> np.ndarray:
    """Return (N) a number for each row, equal for equal texts; the texts may also be a column of a user's own."""
    return column.astype("category").cat.codes.to_numpy()


def _reasons(block: Block) -> Coded:
    """Return why each question failed: an empty text where it did not."""
    errors, values = block["error"], [*block["error"].values, "no prediction", ""]
    said = errors.map([bool(text) for text in values[: len(errors.values)]] + [False], bool)
    unsaid = np.where(block["prediction"].codes < 0, len(values) - 2, len(values) - 1)
    return Coded(np.where(said, errors.codes, unsaid), values)


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

    def grade(block: Block, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fields = ("task", "answer", "options", "prediction")
        numbers, first = combine(*(block[field].codes[rows] for field in fields))
        found = np.zeros((2, len(first)), bool)
        # in the order of the rows, so that an error is about the first one
        order = np.argsort(first)
        values = (block[field].values_at(rows[first[order]]) for field in fields)
        for i, own, answer, options, prediction in zip(order.tolist(), *values):
            own = _task_of(own, options, task)
            if own not in known:
                known[own] = find_evaluator(own)
            evaluator = known[own]
            if evaluator is None:
                where = f"{folder}: question {block['key'].at(rows[first[i]])}"
                raise RunError(f"{where}: no offline score for a {own} question; it needs a judge")
            found[0, i], found[1, i] = evaluator.grade_quickly(answer, options, prediction)
        right, parsed = np.zeros(len(block["key"]), bool), np.zeros(len(block["key"]), bool)
        right[rows], parsed[rows] = found[:, numbers]
        return right, parsed

    return grade


def _task_of(own: Task | None, options: Sequence[str], task: Task) -> Task:
    """Return the task of a row: its own, or one that the benchmark's name and the options tell."""
    return own or (task if task in USUAL_TASKS else "choice" if options else "open")


def _grade_by_judge(folder: Path, judge: str, spec: Spec) -> tuple[Block, Grade]:
    """Return the rows of a run, and a rule that looks up a judge's verdicts on them; these can always be parsed."""
    chosen = rubrics_by_type(folder)
    if any(len(names) != 1 or not load_rubric(names[0]).gives_correct for names in chosen.values()):
        listed = ", ".join(name for names in chosen.values() for name in names)
        raise RunError(
            f"{folder}: needed a rubric that says whether an answer is correct, got {listed} of {spec.name}; see its "
            "scores with `sfllava verdicts`"
        )
    path = verdicts_path(folder, judge)
    if not path.exists():
        raise RunError(f"{path}: no verdicts by this judge; there are {', '.join(judge_names(folder)) or 'none'}")
    items = JudgeItems(folder)
    found = match_verdicts(items, items.contents(), path)
    waiting = int(np.count_nonzero(~items.failed & (~found.given | found.failed)))
    stale = int(np.count_nonzero(~items.failed & found.stale & ~found.failed))
    if waiting or stale:
        counts = [f"{waiting:,} predictions have no verdict yet, or a failed one"] * bool(waiting)
        counts += [f"{stale:,} verdicts are on other predictions than those in the run now"] * bool(stale)
        raise RunError(
            f"{path}: {', and '.join(counts)}: judge again, or see the verdicts so far with `sfllava verdicts`"
        )
    right = np.zeros(len(items.rows["key"]), bool)
    right[items.first] = right[items.second] = (found.correct == 1) & ~items.failed
    return items.rows, lambda block, rows: (right, np.ones(len(right), bool))


def _read_costs(folder: Path) -> dict[str, Any]:
    file = folder / COSTS
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: not JSON: {error}") from error
