"""Write the results of a reproduction as an HTML page, a CSV file and a LaTeX table."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sfllava.analysis.tables import export
from sfllava.files import folder_of_parts, write_file
from sfllava.published.reproduction.page import format_difference, format_interval, make_page, summary_lines
from sfllava.published.reproduction.results import Result, Results

NAME = "reproduction"


def write_report(results: Results, out: str | Path) -> Path:
    """Write reproduction.html, .csv and .tex, either all or none; the same results give identical files.

    Args:
        results: From `read_results`.
        out: The folder of the reproduction; created if it does not exist.

    Returns:
        The path of the page.
    """
    out = Path(out)
    version = importlib.metadata.version("sfllava")
    with folder_of_parts(out) as parts:
        write_file(parts / f"{NAME}.html", make_page(results, version).encode("utf-8", "backslashreplace"))
        export(to_frame(results.results), parts / f"{NAME}.csv")
        export(_short_frame(results.results), parts / f"{NAME}.tex")
    return out / f"{NAME}.html"


def to_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return a data frame with one row per number of each table.

    The columns are table, benchmark, model, label (the row in an ablation), setting, measure, judge, state; paper, ours
    with its interval from low to high, difference (ours minus paper) with its interval; paper_in_interval, n, failed,
    unparsable and note. Accuracies are in percent, scores from 0 to 5.
    """
    rows = []
    for result in results:
        number, gap = result.number, result.difference or (None, None, None)
        rows.append(
            {
                "table": number.table,
                "benchmark": number.benchmark,
                "model": number.size,
                "label": number.label,
                "setting": number.setting.name,
                "measure": number.measure,
                "judge": result.judge,
                "state": result.state,
                "paper": number.value,
                "ours": result.ours,
                "low": result.low,
                "high": result.high,
                "difference": gap[0],
                "difference_low": gap[1],
                "difference_high": gap[2],
                "paper_in_interval": {True: "yes", False: "no", None: ""}[result.inside],
                "n": result.n,
                "failed": result.failed,
                "unparsable": result.unparsable,
                "note": "; ".join(result.notes),
            }
        )
    table = pd.DataFrame(rows)
    numbers = ["paper", "ours", "low", "high", "difference", "difference_low", "difference_high"]
    return table.assign(**{name: table[name].astype(float).round(4) for name in numbers})


def _short_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return the columns that fit on a printed page, as text with the decimals of each measure."""
    rows = []
    for result in results:
        number = result.number
        ours = format_interval(number.percent, result.ours, result.low, result.high) if result.ours is not None else ""
        rows.append(
            {
                "table": number.table.replace("_", " "),
                "model": number.size,
                "benchmark": number.benchmark,
                "row": number.label or number.measure,
                "judge": result.judge,
                "paper": "out of memory" if number.value is None else f"{number.value:.{number.decimals}f}",
                "ours": ours or result.state,
                "difference": format_difference(result).replace("\u2212", "-"),
                "n": result.n,
            }
        )
    return pd.DataFrame(rows)


def format_results(results: Results) -> str:
    """Return one line per number and the summary, as text."""
    lines = []
    for result in results.distinct():
        number = result.number
        name = f"{number.run} {number.measure}" + (f", {number.label}" if number.label else "")
        paper = "out of memory" if number.value is None else f"{number.value:.{number.decimals}f}"
        ours = result.state
        if result.ours is not None:
            gap = format_difference(result).replace("\u2212", "-")
            ours = format_interval(number.percent, result.ours, result.low, result.high) + (f", {gap}" if gap else "")
        judge = f" by {result.judge}" if result.judge else ""
        lines.append(f"  {name}: paper {paper}, ours {ours}{judge}" + (" (see the notes)" if result.notes else ""))
    return "\n".join([*lines, *summary_lines(results)])
