"""Accuracy with its interval, and what a setting costs."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.models.operations import shape_from


def accuracy(results: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Of each group: tokens, questions, failed, unparsable, and accuracy, low and high in percent over all of them.

    A group is a setting on a benchmark, or what `by` says. Where groups are settings, `not_asked` counts the questions
    that a run has not come to yet; they are in no other column, and a setting that has no rows at all has no accuracy.
    """
    unasked = [setting for setting in results.attrs.get("settings", ()) if not setting["rows"]]
    several = len({*results["benchmark"], *(setting["benchmark"] for setting in unasked)}) > 1
    by = list(by or (["benchmark"] * several + ["name"]))
    rows = []
    for names, group in results.groupby(by, sort=False, observed=True):
        found = stats.proportion(group["correct"].to_numpy(), group["video"].cat.codes.to_numpy())
        rows.append(
            dict(zip(by, names))
            | {"tokens": group["tokens"].max(), "questions": len(group), "videos": found.videos}
            | {"failed": int(group["failed"].sum()), "unparsable": int(group["unparsable"].sum())}
            | {"accuracy": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
        )
    if not {*by} <= {"benchmark", "name"} or "name" not in by:
        return pd.DataFrame(rows)
    counts = ("questions", "videos", "failed", "unparsable")
    rows += [{**dict.fromkeys(counts, 0), **{column: setting[column] for column in by}} for setting in unasked]
    table = pd.DataFrame(rows)
    table["not_asked"] = [_not_asked(results, row) for row in rows]
    return table


def _not_asked(results: pd.DataFrame, row: dict[str, Any]) -> int:
    """The questions that the runs of a row of `accuracy` have not asked yet at its setting."""
    same = [
        setting for setting in results.attrs.get("settings", ())
        if all(setting[column] == row[column] for column in ("name", "benchmark") if column in row)
    ]  # fmt: skip
    runs = results.attrs.get("runs", {})
    return sum(max(0, runs[s["run"]].get("questions", 0) - s["rows"]) for s in same if s["run"] in runs)


def costs(results: pd.DataFrame) -> pd.DataFrame:
    """Of each name: tokens, frames, aggregation, and prefill_flops, encode_flops, kv_bytes by arithmetic.

    Where a sweep measured them, also seconds (encode and prefill, alone and cold) and peak_bytes (of a GPU).
    """
    rows = []
    for (name, run, setting), _ in results.groupby(["name", "run", "setting"], sort=False, observed=True):
        facts = results.attrs["runs"][run]
        about = next((s for s in facts.get("settings", []) if s["name"] == setting), {})
        row = {"name": name, "run": run, "frames": about.get("frames"), "aggregation": about.get("aggregation")}
        row["tokens"] = about.get("budget")
        if (shape := (facts.get("model") or {}).get("shape")) and about.get("budget"):
            sizes = shape_from(shape)
            row["prefill_flops"] = float(sizes.prefill_flops(about["budget"]))
            row["kv_bytes"] = float(sizes.kv_bytes(about["budget"]))
        row |= facts["costs"].get(setting, {})
        rows.append(row)
    return pd.DataFrame(rows).drop_duplicates("name").reset_index(drop=True)


def pareto(table: pd.DataFrame, cost: str = "tokens") -> pd.Series:
    """Whether no other row is as cheap and better, or as good and cheaper; never where one of both is missing."""
    values = table[[cost, "accuracy"]].to_numpy(float)
    front = [
        np.isfinite(own).all()
        and not any(c <= own[0] and a >= own[1] and (c < own[0] or a > own[1]) for c, a in values)
        for own in values
    ]
    return pd.Series(np.array(front, bool), index=table.index, name="pareto")


def failures(results: pd.DataFrame) -> pd.DataFrame:
    """How often each setting failed for each reason."""
    failed = results[results["failed"]]
    return failed.groupby(["name", "reason"], observed=True).size().rename("questions").reset_index()
