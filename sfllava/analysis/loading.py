"""Run folders -> one table of graded rows."""

# what a pandas expression gives is a union of half a dozen types to a checker
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava.benchmarks.base import load_spec
from sfllava.evaluators.choice import parse_strict
from sfllava.evaluators.match import normalise
from sfllava.files import printable
from sfllava.runs.run_folder import RunError, read_rows, read_run
from sfllava.runs.verdicts import judge_names, read_items, read_verdicts, verdict_key, verdicts_path
from sfllava.types import Task

_TEXTS = ("run", "benchmark", "setting", "key", "video", "type", "reason")
COSTS = "costs.json"


def load_results(runs: str | Path | Iterable[str | Path], judge: str | None = None) -> pd.DataFrame:
    """A row for each question and setting of one or many run folders.

    judge: the name of a judge that has judged them all, for open questions; else an answer is right by its words or
    its letter. A judge's failure is no "no": while it has verdicts to give, that is an error.

    Columns: run, benchmark, setting, key, video, type, tokens, correct, unparsable, failed, reason, seconds, and
    `name`: the setting, and of which run where several runs have it. What failed or cannot be read is not correct.
    `.attrs["runs"]` has each run's identity and what is known of its costs, `.attrs["settings"]` how many rows each
    setting has, which may be none. Raises RunError for a benchmark without an offline score, for a run that is in the
    list twice, and for a line that is no row.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    texts = {column: _Texts() for column in _TEXTS}
    numbers = {"tokens": array("d"), "seconds": array("d")}
    flags = {name: array("b") for name in ("correct", "unparsable", "failed")}
    facts: dict[str, Any] = {}
    for folder, label in zip(folders, _labels(folders)):
        about = read_run(folder)
        identity = about["identity"]
        spec = load_spec(identity["benchmark"])
        grade = _judged(folder, judge, spec.task) if judge else _grader(spec.task, folder)
        ablations = [session["ablation"] for session in about.get("sessions", []) if session.get("ablation")]
        facts[label] = identity | {"costs": _read_costs(folder), "ablation": ablations[-1] if ablations else None}
        for row in read_rows(folder):
            reason = row["error"] or ("no prediction" if row["prediction"] is None else "")
            correct, parsed = (False, True) if reason else grade(row)
            flags["correct"].append(correct)
            flags["unparsable"].append(not parsed)
            flags["failed"].append(bool(reason))
            seconds = row.get("seconds") or {}
            numbers["seconds"].append(sum(seconds.values()) if seconds else np.nan)
            tokens = row["visual_tokens"]
            numbers["tokens"].append(np.nan if tokens is None else tokens)
            texts["run"].append(label)
            texts["benchmark"].append(spec.name)
            for column in ("setting", "key", "video"):
                texts[column].append(row[column])
            texts["type"].append(spec.types.get(row["type"], row["type"]))
            texts["reason"].append(reason)
    data: dict[str, Any] = {column: values.categories() for column, values in texts.items()}
    data |= {name: np.frombuffer(values) if values else np.empty(0) for name, values in numbers.items()}
    data |= {name: np.array(values, dtype=bool) for name, values in flags.items()}
    table = pd.DataFrame(data)
    settings = [
        (identity["benchmark"], label, setting["name"])
        for label, identity in facts.items() for setting in identity.get("settings") or ()
    ]  # fmt: skip
    at = ["benchmark", "run", "setting"]
    pairs = list(table[at].drop_duplicates().astype(object).itertuples(index=False, name=None))
    names = _names([*pairs, *settings])
    categories = pd.Index(list(dict.fromkeys(names.values())), dtype=object)
    codes = categories.get_indexer([names[pair] for pair in pairs])
    # a group has its pair's place: both are in the order of the rows
    groups = table.groupby(at, sort=False, observed=True).ngroup() if len(table) else np.empty(0, int)
    table["name"] = pd.Categorical.from_codes(codes[groups], categories=categories)
    counts = Counter(groups.tolist() if len(table) else [])
    rows = {pair: counts[i] for i, pair in enumerate(pairs)}
    table.attrs["settings"] = [
        {"benchmark": pair[0], "run": pair[1], "name": name, "rows": rows.get(pair, 0)} for pair, name in names.items()
    ]
    table.attrs["runs"] = facts
    return table


class _Texts:
    """A column of texts, of which each is kept once."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._values = array("i")

    def append(self, text: str) -> None:
        self._values.append(self._codes.setdefault(text, len(self._codes)))

    def categories(self) -> pd.Categorical:
        codes = np.frombuffer(self._values, np.int32) if self._values else np.empty(0, np.int32)
        return pd.Categorical.from_codes(codes, categories=pd.Index(list(self._codes), dtype=object))


def _labels(folders: list[Path]) -> list[str]:
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"a run is given twice: {', '.join(map(str, folders))}")
    if not folders:
        raise RunError("needed a run folder, got none")
    names = [printable(folder.resolve().name) for folder in folders]
    return names if len(set(names)) == len(names) else [printable(str(folder)) for folder in folders]


def _names(pairs: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """(benchmark, run, setting) -> what the setting is called."""
    known = list(dict.fromkeys(pairs))
    # a setting may have a run for each of several benchmarks; two runs of one benchmark need telling apart
    often = Counter((benchmark, setting) for benchmark, _, setting in known)
    again = {setting for (_, setting), count in often.items() if count > 1}
    return {pair: f"{pair[1]}: {pair[2]}" if pair[2] in again else pair[2] for pair in known}


def _grader(task: Task, folder: Path) -> Callable[[dict[str, Any]], tuple[bool, bool]]:
    """Row -> whether it is right, and whether it could be read, by the strict rule of the task."""

    # there may be a million rows, with the same few replies again and again
    read, words = lru_cache(65536)(parse_strict), lru_cache(65536)(normalise)

    def choice(row: dict[str, Any]) -> tuple[bool, bool]:
        chosen = read(row["prediction"], len(row["options"]))
        return chosen is not None and row["options"][chosen] == row["answer"], chosen is not None

    def exact(row: dict[str, Any]) -> tuple[bool, bool]:
        wanted, said = words(row["answer"]), words(row["prediction"])
        return bool(wanted) and said == wanted, bool(said)

    graders = {"choice": choice, "open": exact}
    if task not in graders:
        raise RunError(f"{folder}: no offline score for a {task} benchmark; its predictions are for a judge")
    return graders[task]


def _judged(folder: Path, judge: str, task: Task) -> Callable[[dict[str, Any]], tuple[bool, bool]]:
    """Row -> whether the judge says that it is right, and True."""
    if task != "open":
        raise RunError(f"{folder}: a judge's yes or no is for open questions, and this is a {task} benchmark")
    path = verdicts_path(folder, judge)
    if not path.exists():
        raise RunError(f"{path}: no such verdicts; there are {', '.join(judge_names(folder)) or 'none'}")
    said = {verdict_key(row): row for row in read_verdicts(path)}
    right: dict[tuple[str, str], bool] = {}
    waiting = stale = 0
    for unit in read_items(folder):
        if unit.ask is None:  # inference failed: wrong, without asking a judge
            continue
        verdict = said.get(unit.at)
        if verdict is None or verdict["error"] is not None:
            waiting += 1
        elif verdict["content"] != unit.ask.content:
            stale += 1
        else:
            right[unit.key, unit.setting] = bool(verdict["correct"])
    if waiting or stale:
        counts = [f"{waiting:,} predictions have no verdict yet, or one that failed"] * bool(waiting)
        counts += [f"{stale:,} verdicts are on other predictions than those in the run now"] * bool(stale)
        raise RunError(f"{path}: {', and '.join(counts)}: judge again, or see what there is with `sfllava judges`")
    return lambda row: (right[row["key"], row["setting"]], True)


def _read_costs(folder: Path) -> dict[str, Any]:
    file = folder / COSTS
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: not JSON: {error}") from error
