"""The table of all runs for a terminal, and as a page."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from sfllava.display import html, page, text

_SHARED = ("benchmark", "model", "judge", "state")
"""Columns that are named once above the table if all rows say the same."""
_OF_RUN = ("run", "benchmark", "model", "state", "date")
_STATES = ("complete", "running", "unfinished", "judging", "unreadable")


def format_runs(table: pd.DataFrame, width: int | None = None) -> str:
    """Format a table from `load_runs` as text that fits the terminal.

    Args:
        table: The table.
        width: The columns that it may take; default: those of the terminal, at most 120.
    """
    if table.empty:
        return "no runs"
    rows = table.to_dict("records")
    readable = [row for row in rows if row["setting"] or row["state"] != "unreadable"]
    lines = []
    if readable:
        shared = {name: value for name in _SHARED if len(readable) > 1 and (value := _only(readable, name)) is not None}
        lines += [_shared_text(shared)] if any(shared.values()) else []
        columns = {name: cells for name, cells in _columns(readable).items() if name not in shared}
        cells = [list(each) for each in zip(*columns.values())]
        repeated = [i for i, name in enumerate(columns) if name in _OF_RUN]
        for before, row, cell in zip(readable, readable[1:], cells[1:]):
            if before["run"] == row["run"]:
                for i in repeated:
                    cell[i] = ""
        heads = ["questions" if name == "n" else name for name in columns]
        right = [i for i, name in enumerate(columns) if name in ("n", "accuracy, %", "score", "tokens")]
        wrapped = [i for i, name in enumerate(columns) if name in ("run", "benchmark", "model", "setting", "judge")]
        fold = [i for i, name in enumerate(columns) if name == "setting"]
        lines.append(text.table(cells, heads, right=right, wrap=wrapped, fold=fold, width=width))
    problems = {row["run"]: row["problem"] for row in rows if row["problem"]}
    lines += [f"{run}: {problem}" for run, problem in problems.items()]
    return "\n".join([*lines, text.paragraph(describe_runs(table), width)])


def describe_runs(table: pd.DataFrame) -> str:
    """Return the number of runs in each state, in words."""
    states = table.drop_duplicates("run")["state"]
    counts = Counter(states)
    listed = ", ".join(f"{counts[state]:,} {state}" for state in _STATES if counts[state])
    interval = "; [ ] 95 % interval, clustered by video" if table["low"].notna().any() else ""
    return f"{len(states):,} run{'s' * (len(states) != 1)}: {listed}{interval}"


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the cells of each column; columns that are empty in all rows are left out."""
    found = {name: [str(row[name]) for row in rows] for name in ("run", "benchmark", "model", "setting")}
    found["n"] = ["" if pd.isna(row["n"]) else f"{row['n']:,}" for row in rows]
    found["accuracy, %"] = [_accuracy(row) for row in rows]
    found["score"] = ["" if pd.isna(row["score"]) else f"{row['score']:.2f}" for row in rows]
    found["judge"] = [row["judge"] for row in rows]
    found["state"] = [_state(row) for row in rows]
    found["date"] = [row["date"][:10] for row in rows]
    return {name: cells for name, cells in found.items() if any(cells)}


def _accuracy(row: dict[str, Any]) -> str:
    if pd.isna(row["accuracy"]):
        return ""
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row['accuracy']:.1f}{interval}"


def _state(row: dict[str, Any]) -> str:
    if row["state"] in ("running", "unfinished", "judging") and not pd.isna(row["done"]):
        return f"{row['state']}, {row['done']:,} done"
    return row["state"]


def _only(rows: list[dict[str, Any]], name: str) -> str | None:
    values = {_state(row) if name == "state" else row[name] for row in rows}
    return values.pop() if len(values) == 1 else None


def _shared_text(shared: dict[str, str]) -> str:
    return "all: " + ", ".join(
        value if name == "state" else f"{name} {value}" for name, value in shared.items() if value
    )


def runs_page(table: pd.DataFrame, title: str) -> str:
    """Return a table from `load_runs` as a page that can be sorted and searched; it loads nothing.

    Args:
        table: The table.
        title: The title of the page.
    """
    rows = []
    for row in table.to_dict("records"):
        known = not pd.isna(row["low"])
        shown: dict[str, Any] = {name: row[name] for name in ("run", "benchmark", "model", "setting", "tokens", "n")}
        shown |= {
            "accuracy, %": html.Html(f"{row['accuracy']:.1f}") if not pd.isna(row["accuracy"]) else None,
            "95 % interval": html.interval_bar(row["accuracy"], row["low"], row["high"]) if known else None,
            "from": f"{row['low']:.1f}" if known else None, "to": f"{row['high']:.1f}" if known else None,
            "score": row["score"], "judge": row["judge"], "state": _state(row), "date": row["date"],
            "problem": row["problem"],
        }  # fmt: skip
        rows.append({name: None if _missing(value) else value for name, value in shown.items()})
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)] if rows else ["run"]
    return page.table_page(title, describe_runs(table) if rows else "no runs", html.table(rows, used))


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value != value or value == ""
