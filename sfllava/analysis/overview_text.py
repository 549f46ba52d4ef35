"""The table of all runs for a terminal, and as a page."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from html import escape
from typing import Any

import pandas as pd

from sfllava.display import html, page, text

_SHARED = ("benchmark", "model", "judge")
"""Columns that are named once above the table if all rows say the same."""
_OF_RUN = ("run", "benchmark", "model", "judge", "date")
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
    listed = [row for row in rows if row["setting"]]
    shared = {name: _only(listed, name) for name in _SHARED} if len(listed) > 1 else {}
    lines = _shared_lines(shared)
    if listed:
        lines.append(_table(listed, [name for name in shared if shared[name] is not None], width))
    lines += _problems(table)
    return "\n".join([*lines, text.paragraph(describe_runs(table), width)])


def _table(rows: list[dict[str, Any]], left_out: Collection[str], width: int | None) -> str:
    """Return the table; a run is named once, and the date is left out where there is no room for it."""
    width = width or text.terminal_width()
    columns = {name: cells for name, cells in _columns(rows).items() if name not in left_out}
    for i in range(len(rows) - 1, 0, -1):
        if rows[i]["run"] == rows[i - 1]["run"]:
            for name in columns.keys() & set(_OF_RUN):
                if columns[name][i] == columns[name][i - 1]:
                    columns[name][i] = ""
    for without in ([], ["date"]):
        shown = {name: cells for name, cells in columns.items() if name not in without}
        formatted = _format(shown, width)
        if formatted.count("\n") > len(rows) and not text.common_start(shown["setting"]):  # some lines are broken
            formatted = _format(shown | {"setting": _without_repetition(rows)}, width)
        if max(map(len, formatted.split("\n"))) <= width:
            break
    return formatted


def _format(columns: dict[str, list[str]], width: int) -> str:
    names = list(columns)
    right = [i for i, name in enumerate(names) if name in ("questions", "accuracy, %", "score")]
    wrap = [i for i, name in enumerate(names) if name in ("run", "model", "setting", "judge")]
    cells = [list(each) for each in zip(*columns.values())]
    return text.table(cells, names, right=right, wrap=wrap, fold=[names.index("setting")], width=width)


def _without_repetition(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names of settings, with "…" for what they have in common with the first one of their run."""
    by_run: dict[str, list[str]] = {}
    for row in rows:
        by_run.setdefault(row["run"], []).append(row["setting"])
    starts = {run: text.common_start(names) for run, names in by_run.items()}
    names, before = [], None
    for row in rows:
        start = starts[row["run"]]
        again = bool(start) and before == row["run"]
        names.append("…" + row["setting"].removeprefix(start) if again else row["setting"])
        before = row["run"]
    return names


def _problems(table: pd.DataFrame) -> list[str]:
    """Return a line for each run of which something cannot be read."""
    problems = {row["run"]: row["problem"] for row in table.to_dict("records") if row["problem"]}
    return [f"{text.escape_controls(run)}: {text.escape_controls(problem)}" for run, problem in problems.items()]


def describe_runs(table: pd.DataFrame) -> str:
    """Return the number of runs in each state, in words."""
    states = table.drop_duplicates("run")["state"]
    counts = Counter(states)
    listed = ", ".join(f"{counts[state]:,} {state}" for state in _STATES if counts[state])
    interval = "; [ ] 95 % interval, clustered by video" if table["low"].notna().any() else ""
    return f"{len(states):,} run{'s' * (len(states) != 1)}: {listed}{interval}"


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the cells of each column; columns that are empty in all rows are left out."""
    states = [_state(row) for row in rows]
    found = {"run": [row["run"] + ("" if s == "complete" else f" ({s})") for row, s in zip(rows, states)]}
    found |= {name: [row[name] for row in rows] for name in ("benchmark", "model", "setting")}
    found["questions"] = ["" if pd.isna(row["n"]) else f"{row['n']:,}" for row in rows]
    found["accuracy, %"] = [_accuracy(row) for row in rows]
    found["score"] = ["" if pd.isna(row["score"]) else f"{row['score']:.2f}" for row in rows]
    found["judge"] = [row["judge"] for row in rows]
    found["date"] = [row["date"][:10] for row in rows]
    return {name: cells for name, cells in found.items() if any(cells)}


def _accuracy(row: dict[str, Any]) -> str:
    if pd.isna(row["accuracy"]):
        return ""
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row['accuracy']:.1f}{interval}"


def _state(row: dict[str, Any]) -> str:
    if row["state"] in ("running", "unfinished", "judging") and row["total"]:
        return f"{row['state']}, {100 * row['done'] // row['total']}%"
    return row["state"]


def _only(rows: list[dict[str, Any]], name: str) -> str | None:
    values = {row[name] for row in rows}
    return values.pop() if len(values) == 1 else None


def _shared_lines(shared: dict[str, str | None]) -> list[str]:
    named = [f"{name} {value}" for name, value in shared.items() if value]
    return [text.escape_controls(", ".join(named))] if named else []


def runs_page(table: pd.DataFrame, title: str) -> str:
    """Return a table from `load_runs` as a page that can be sorted and searched; it loads nothing.

    Args:
        table: The table.
        title: The title of the page.
    """
    rows = []
    for row in table[table["setting"] != ""].to_dict("records"):
        known = not pd.isna(row["low"])
        bar = html.interval_bar(row["accuracy"], row["low"], row["high"]) if known else ""
        ends = f' <span class="soft">{row["low"]:.1f} to {row["high"]:.1f}</span>' if known else ""
        shown: dict[str, Any] = {name: _breakable(row[name]) for name in ("run", "benchmark", "model")}
        shown["setting"] = html.Html(f'<span class="name">{_breakable(row["setting"])}</span>')
        shown |= {"tokens": row["tokens"], "questions": row["n"]}
        shown["accuracy, %"] = html.Html("" if pd.isna(row["accuracy"]) else f"{row['accuracy']:.1f}")
        shown |= {"95 % interval": html.Html(bar + ends), "score": row["score"], "judge": _breakable(row["judge"])}
        date = f'<span class="whole" title="{escape(row["date"])} UTC">{escape(row["date"][:10])}</span>'
        shown |= {"state": html.Html(escape(_state(row))), "date": html.Html(date)}
        rows.append({name: html.Html("") if _missing(value) else value for name, value in shown.items()})
    used = [name for name in rows[0] if any(row[name] != "" for row in rows)] if rows else ["run"]
    about = describe_runs(table) if len(table) else "no runs"
    return page.table_page(title, about, html.table(rows, used), _problems(table))


def _breakable(name: str) -> html.Html:
    """Return a name that may be broken into lines behind each underscore and slash."""
    return html.Html(escape(name).replace("_", "_<wbr>").replace("/", "/<wbr>"))


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value != value or value == ""
