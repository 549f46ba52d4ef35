"""The parts of a report as the template takes them: rows of tables, cells of the matrix, and figures."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from sfllava.analysis.breakdown import breakdowns
from sfllava.analysis.results import costs, failures
from sfllava.display.units import format_operations, format_p, format_seconds
from sfllava.files import format_bytes
from sfllava.plots import draw_chart
from sfllava.plots.inline import inline_svg
from sfllava.reports.methods import model_name
from sfllava.reports.ranking import Gap, Ranking, in_points

KEY_FIGURE, MORE_FIGURES = "budget", ("paper", "frames", "heat", "cost")
MOST_GROUPS = 24
_INTERVALS, _NUMBERS = 7, 13  # settings up to which a cell of the matrix has room for an interval, and for a number
_STATUS = {"best": "best", "tied": "not distinguishable", "worse": "significantly worse"}
_COUNTS = {"failed": "failed", "empty": "empty", "unparsable": "unparsable", "not_asked": "not asked yet"}
# column, head, format
_COSTS = (
    ("tokens", "visual tokens", "{:,.0f}".format),
    ("prefill_flops", "prefill of a video", format_operations),
    ("kv_bytes", "keys and values", format_bytes),
    ("seconds_encode", "encode", format_seconds),
    ("seconds_prefill", "prefill", format_seconds),
    ("seconds", "encode and prefill", format_seconds),
    ("peak_bytes", "peak GPU memory", format_bytes),
)


def ranking_table(ranking: Ranking, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table of accuracies: which columns it has, and its rows."""
    models = {label: model_name(facts) for label, facts in runs.items()}
    several = len(set(models.values())) > 1
    counts = {key: head for key, head in _COUNTS.items() if any(entry.counts[key] for entry in ranking.entries)}
    rows = [
        {
            "entry": entry,
            "model": models.get(entry.run, "") if several else "",
            "counts": [entry.counts[key] for key in counts],
            "status": _STATUS.get(entry.status, entry.why and f"not ranked: {entry.why}"),
            "interval": f"[{entry.low:.1f}, {entry.high:.1f}]" if entry.value is not None else "",
        }
        for entry in ranking.entries
    ]
    ranked = any(entry.place is not None for entry in ranking.entries)
    own_number = ranking.measure != "accuracy"
    return {"rows": rows, "counts": list(counts.values()), "models": several, "ranked": ranked, "overall": own_number}


def matrix(ranking: Ranking) -> dict[str, Any] | None:
    """Return the matrix of differences, row minus column, in the order of the ranking; None if there is none."""
    asked = [entry.name for entry in ranking.entries if entry.counts["questions"]]
    names = [entry.name for entry in ranking.ranked] or asked
    if not ranking.gaps or len(names) < 2:
        return None
    detail = "interval" if len(names) <= _INTERVALS else "number" if len(names) <= _NUMBERS else "mark"
    rows = [
        {
            "name": name,
            "cells": [None if name == other else _gap_cell(name, other, ranking.gaps[name, other]) for other in names],
        }
        for name in names
    ]
    return {"rows": rows, "detail": detail, "left_out": len(names) < len(asked)}


def _gap_cell(name: str, other: str, gap: Gap) -> dict[str, str]:
    points, interval = in_points(gap.points, sign=True), f"[{in_points(gap.low)}, {in_points(gap.high)}]"
    p = format_p(gap.p)
    verdict = f"p {p}" if p.startswith("<") else f"p = {p}"
    verdict += ", significant" if gap.significant else ", not significant"
    return {
        "points": points,
        "interval": interval,
        "style": ("up" if gap.points > 0 else "down") if gap.significant else "noise",
        "mark": ("▲" if gap.points > 0 else "▼") if gap.significant else "·",
        "title": f"{name} minus {other}: {points} points {interval}, {verdict}",
    }


def cost_table(results: pd.DataFrame, ranking: Ranking) -> dict[str, Any] | None:
    """Return the costs of the settings in the order of the ranking; None if there are none."""
    table = costs(results).set_index("name")
    columns = [(key, head, show) for key, head, show in _COSTS if key in table and table[key].notna().any()]
    if not columns:
        return None
    rows = []
    for entry in ranking.entries:
        if entry.name not in table.index:
            continue
        cells = []
        for key, _, show in columns:
            value = table.at[entry.name, key]
            known = value is not None and value == value
            share = float(value) / float(table[key].max()) if known and table[key].max() > 0 else 0.0
            cells.append({"text": show(value) if known else "–", "share": round(100 * share, 1)})
        rows.append({"name": entry.name, "cells": cells})
    measured = sorted({str(video) for video in table["video"].dropna()}) if "video" in table else []
    return {"heads": [head for _, head, _ in columns], "rows": rows, "measured": measured}


def group_tables(results: pd.DataFrame, ranking: Ranking) -> list[dict[str, Any]]:
    """Return a table of accuracies for each column of groups, such as question types."""
    found = []
    for column, table in breakdowns(results).items():
        sizes: dict[str, int] = {}
        for row in table.to_dict("records"):
            sizes[row[column]] = max(row["questions"], sizes.get(row[column], 0))
        largest = sorted(sizes, key=lambda group: -sizes[group])[:MOST_GROUPS]
        groups = [group for group in sizes if group in largest]
        values = {(row["name"], row[column]): row for row in table.to_dict("records")}
        rows = [
            {"name": entry.name, "cells": [_group_cell(values.get((entry.name, group))) for group in groups]}
            for entry in ranking.entries if entry.counts["questions"]
        ]  # fmt: skip
        left_out = len(sizes) - len(groups)
        heads = [{"name": str(group), "questions": f"{sizes[group]:,}"} for group in groups]
        found.append({"by": column.replace("_", " "), "heads": heads, "rows": rows, "left_out": left_out})
    return found


def _group_cell(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"text": "–", "value": 0, "title": "no questions"}
    text = f"{row['accuracy']:.1f}"
    return {
        "text": text,
        "value": round(row["accuracy"], 1),
        "title": f"{text} % [{row['low']:.1f}, {row['high']:.1f}]",
    }


def failure_table(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the reasons of failed questions with their counts, the most common first; empty if none failed."""
    table = failures(results)
    if not len(table):
        return []
    by_reason = table.groupby("reason", observed=True, sort=False)
    rows = [
        {"reason": str(reason), "questions": int(part["questions"].sum()), "settings": len(part)}
        for reason, part in by_reason
    ]
    return sorted(rows, key=lambda row: -row["questions"])


def figures(results: pd.DataFrame, names: Sequence[str], prefix: str, row_height: float = 3.0) -> list[Markup]:
    """Return figures as SVG; one that has nothing to show is left out.

    Args:
        results: From `load_results`.
        names: The names of the figures.
        prefix: What makes the ids in them unique in the page.
        row_height: Height of a row of panels in inches.
    """
    charts = {name: draw_chart(name, results) for name in names}
    return [
        Markup(inline_svg(chart, f"{prefix}-{name}", row_height))  # all text in it is drawn or escaped
        for name, chart in charts.items() if not isinstance(chart, str)
    ]  # fmt: skip
