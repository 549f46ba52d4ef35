"""Run folders -> tables: accuracy with its interval, and paired differences between settings.

Intervals are 95 %, by drawing whole videos anew (bootstrap): questions about one video are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava.benchmarks.base import load_spec
from sfllava.runfolder import RunError, read_rows, read_run
from sfllava.scoring import EVALUATORS
from sfllava.types import Question, Task

# the strict rule of each task: what a person would call right
_RULES: dict[Task, str] = {"open": "match-exact", "choice": "choice-strict"}


def load_results(run: str | Path) -> pd.DataFrame:
    """A row a question and setting: key, setting, video, type, tokens, correct, failed (and so not correct).

    Raises RunError for a benchmark that has no offline score.
    """
    run = Path(run)
    task = load_spec(read_run(run)["identity"]["benchmark"]).task
    evaluator = EVALUATORS[task]
    if evaluator is None:
        raise RunError(f"{run}: no offline score for a {task} benchmark; its predictions are for a judge")

    def correct(row: dict) -> bool:
        options = tuple(row["options"])
        index = options.index(row["answer"]) if options else None
        question = Question(row["question"], answer=row["answer"], options=options, answer_index=index, task=task)
        return not row["error"] and bool(evaluator(question, row["prediction"])[_RULES[task]].correct)

    return pd.DataFrame(
        {
            "key": row["key"],
            "setting": row["setting"],
            "video": row["video"],
            "type": row["type"],
            "tokens": row["visual_tokens"],
            "correct": correct(row),
            "failed": bool(row["error"]),
        }
        for row in read_rows(run)
    )


def interval(values: np.ndarray, videos: np.ndarray, repeats: int = 4000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) in percent of (N) values, by drawing whole videos anew."""
    names, owner = np.unique(videos, return_inverse=True)
    sums, counts = np.bincount(owner, values, len(names)), np.bincount(owner, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (repeats, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return 100 * float(np.mean(values)), 100 * float(low), 100 * float(high)


def accuracy(results: pd.DataFrame, by: Sequence[str] = ("setting",)) -> pd.DataFrame:
    """Of each group: tokens, questions, failed, and accuracy, low and high in percent over all its questions."""
    rows = []
    groups: Any = results.groupby(list(by), sort=False)
    for names, group in groups:
        mean, low, high = interval(group["correct"].to_numpy(float), group["video"].to_numpy())
        counts = {"tokens": group["tokens"].max(), "questions": len(group), "failed": int(group["failed"].sum())}
        rows.append(dict(zip(by, names)) | counts | {"accuracy": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def difference(results: pd.DataFrame, setting: str, other: str) -> tuple[float, float, float]:
    """(mean, low, high) in points of `setting` minus `other` on the same questions. Raises RunError if they differ."""
    one, two = (results[results["setting"] == name].set_index("key") for name in (setting, other))
    if one.empty or set(one.index) != set(two.index):
        raise RunError(f"{setting} and {other} were not asked the same questions: {len(one)} and {len(two)} rows")
    gain = one["correct"].astype(float) - two["correct"].astype(float)[one.index]
    return interval(gain.to_numpy(), one["video"].to_numpy())
