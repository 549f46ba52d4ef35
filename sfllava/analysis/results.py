"""Accuracy with intervals, and the cost of each setting."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.analysis.loading import codes_of
from sfllava.models.operations import shape_from

_COUNTS = ("failed", "empty", "unparsable")
_NUMBERS = ("tokens", "accuracy", "low", "high")
_COSTS = ("name", "run", "frames", "selection", "aggregation", "tokens")


def accuracy(results: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Compute the accuracy of each group, with its interval.

    Args:
        results: A table from `load_results`.
        by: The columns that define a group. Default: the name of the setting, and the benchmark if there are several.

    Returns:
        One row per group, with the columns of `by` and tokens, questions, videos, failed, empty, unparsable, accuracy,
        low and high. Accuracy and its 95 % interval are in percent of all questions in the group. If the groups are
        settings, not_asked is the number of questions that the runs have not reached yet. No other column counts these;
        a setting without rows has no accuracy. Without any rows the table has the same columns.
    """
    unasked = [setting for setting in results.attrs.get("settings", ()) if not setting["rows"]]
    several = len({*results["benchmark"].unique(), *(setting["benchmark"] for setting in unasked)}) > 1
    by = list(by or (["benchmark"] * several + ["name"]))
    rows = []
    needed = dict.fromkeys([*by, "tokens", "correct", *_COUNTS, "video"])
    plain = pd.DataFrame({column: results[column] for column in needed})  # without `attrs`, which each group would copy
    for names, group in plain.groupby(by, sort=False, observed=True):
        found = stats.proportion(group["correct"].to_numpy(), codes_of(group["video"]))
        rows.append(
            dict(zip(by, names))
            | {"tokens": group["tokens"].max(), "questions": len(group), "videos": found.videos}
            | {column: int(group[column].sum()) for column in _COUNTS}
            | {"accuracy": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
        )
    columns = list(dict.fromkeys([*by, "tokens", "questions", "videos", *_COUNTS, "accuracy", "low", "high"]))
    if not {*by} <= {"benchmark", "name"} or "name" not in by:
        return pd.DataFrame(rows, columns=columns)
    counts = ("questions", "videos", *_COUNTS)
    rows += [{**dict.fromkeys(counts, 0), **{column: setting[column] for column in by}} for setting in unasked]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_NUMBERS, float))
    table["not_asked"] = [_not_asked(results, row) for row in rows]
    return table


def _not_asked(results: pd.DataFrame, row: dict[str, Any]) -> int:
    """Return how many questions the runs behind a row of `accuracy` have not asked yet at its setting."""
    same = [
        setting for setting in results.attrs.get("settings", ())
        if all(setting[column] == row[column] for column in ("name", "benchmark") if column in row)
    ]  # fmt: skip
    runs = results.attrs.get("runs", {})
    return sum(max(0, runs[s["run"]].get("questions", 0) - s["rows"]) for s in same if s["run"] in runs)


def costs(results: pd.DataFrame) -> pd.DataFrame:
    """Return the cost of each setting.

    Args:
        results: A table from `load_results`.

    Returns:
        One row per setting, with the columns name, run, frames, selection, aggregation and tokens.
        prefill_flops and kv_bytes are calculated from the model's shape. Further columns are the costs that an
        ablation measured, such as seconds (encode and prefill of one video, without sharing work between
        settings) and peak_bytes (of GPU memory).
    """
    rows = []
    plain = pd.DataFrame({column: results[column] for column in ("name", "run", "setting")})
    for name, run, setting in plain.dropna().drop_duplicates().astype(object).itertuples(index=False, name=None):
        facts = results.attrs["runs"][run]
        about = next((s for s in facts.get("settings", []) if s["name"] == setting), {})
        row = {"name": name, "run": run, "frames": about.get("frames")}
        row |= {"selection": about.get("selection", "uniform"), "aggregation": about.get("aggregation")}
        row["tokens"] = about.get("budget")
        if (shape := (facts.get("model") or {}).get("shape")) and about.get("budget"):
            sizes = shape_from(shape)
            row["prefill_flops"] = float(sizes.prefill_flops(about["budget"]))
            row["kv_bytes"] = float(sizes.kv_bytes(about["budget"]))
        row |= facts["costs"].get(setting, {})
        rows.append(row)
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(_COSTS))
    return table.drop_duplicates("name").reset_index(drop=True)


def pareto(table: pd.DataFrame, cost: str = "tokens") -> pd.Series:
    """Return which rows are Pareto-optimal in cost and accuracy.

    Args:
        table: A table with the columns `accuracy` and `cost`.
        cost: The column to minimize.

    Returns:
        One boolean per row; False where the cost or the accuracy is missing.
    """
    values = table[[cost, "accuracy"]].to_numpy(float)
    front = [
        np.isfinite(own).all()
        and not any(c <= own[0] and a >= own[1] and (c < own[0] or a > own[1]) for c, a in values)
        for own in values
    ]
    return pd.Series(np.array(front, bool), index=table.index, name="pareto")


def failures(results: pd.DataFrame) -> pd.DataFrame:
    """Count the failed questions of each setting by reason."""
    failed = results[results["failed"]]
    return failed.groupby(["name", "reason"], observed=True).size().rename("questions").reset_index()
