"""Every answer of runs with whether it is right, to be listed and filtered in a spreadsheet."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.analysis.loading import load_results
from sfllava.prompts import LETTERS
from sfllava.runs.run_folder import read_rows


def graded_rows(runs: str | Path | Iterable[str | Path], judge: str | None = None) -> pd.DataFrame:
    """Return the answers of runs, each with whether it is right.

    A run does not store this with its predictions: it follows from the answer and the rules, or from the verdicts of a
    judge, which are added later, and may be those of several judges.

    Args:
        runs: One run folder, or several.
        judge: As for `load_results`.

    Returns:
        One row per question and setting, with the columns run, setting, key, video, type, those of groups, question,
        options, answer, prediction, correct (true or false), outcome (right, wrong, empty, unparsable or failed) and
        error (why the question failed).
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    results = load_results(folders, judge)
    groups = results.attrs["groups"]
    found: list[dict[str, Any]] = []
    for label, folder in zip(results.attrs["runs"], folders):
        part = results[results["run"] == label]
        kinds = part["type"].astype(str).tolist()
        graded = zip(part["correct"].tolist(), part["unparsable"].tolist(), part["failed"].tolist())
        for row, kind, (correct, unparsable, failed) in zip(read_rows(folder), kinds, graded, strict=True):
            said = row["prediction"]
            outcome = (
                "failed" if failed else "right" if correct else "empty" if not (said or "").strip()
                else "unparsable" if unparsable else "wrong"
            )  # fmt: skip
            listed = "; ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, row["options"]))
            found.append(
                {"run": label, "setting": row["setting"], "key": row["key"], "video": row["video"], "type": kind}
                | {group: (row.get("groups") or {}).get(group, "") for group in groups}
                | {"question": row["question"], "options": listed, "answer": row["answer"], "prediction": said}
                | {"correct": correct, "outcome": outcome, "error": row["error"]}
            )
    about = ["run", "setting", "key", "video", "type", *groups, "question", "options", "answer", "prediction"]
    return pd.DataFrame(found, columns=[*about, "correct", "outcome", "error"])
