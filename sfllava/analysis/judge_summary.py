"""The scores that a judge gives a run, kept next to its verdicts, so that tables of many runs need not read them."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.analysis.judge_scores import judge_scores, load_verdicts
from sfllava.files import RunError, as_json, write_file
from sfllava.runs.run_folder import PREDICTIONS
from sfllava.runs.verdicts import verdicts_path

_NUMBERS = ("questions", "judged", "no_prediction", "accuracy", "accuracy_low", "accuracy_high", "score")


def keep_judge_scores(run: str | Path, judge: str) -> pd.DataFrame:
    """Compute the scores that a judge gives a run, write them to scores-JUDGE.json, and return them.

    The file is not needed by anything: where it cannot be written, the scores are computed again.
    """
    run = Path(run)
    state = _state(run, judge)
    table = judge_scores(load_verdicts(run, [judge]))
    kept = {"of": state, "scores": table[["setting", "rubric", *_NUMBERS]].to_dict("records")}
    with contextlib.suppress(RunError):
        write_file(_path(run, judge), as_json(kept).encode("utf-8", "backslashreplace"))
    return table


def judge_score_rows(run: Path, judge: str) -> list[dict[str, Any]]:
    """Return the rows of `judge_scores`: those in scores-JUDGE.json, or new ones if it is missing or out of date."""
    try:
        kept = json.loads(_path(run, judge).read_text(encoding="utf-8"))
        if kept["of"] == _state(run, judge):
            return [_row(row) for row in kept["scores"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass  # missing or damaged: computed
    return [_row(row) for row in judge_scores(load_verdicts(run, [judge])).to_dict("records")]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: float("nan") if row[name] is None else float(row[name]) for name in _NUMBERS}
    return {"setting": str(row["setting"]), "rubric": str(row["rubric"])} | numbers


def _path(run: Path, judge: str) -> Path:
    return run / f"scores-{judge}.json"


def _state(run: Path, judge: str) -> list[int]:
    """Return what changes with each row that is added or taken back: sizes and times of both files."""
    return [n for file in (run / PREDICTIONS, verdicts_path(run, judge)) for n in _stamp(file)]


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns
