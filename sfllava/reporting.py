"""What is left of a sweep for a reader: tables as files, figures, and a report in HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sfllava.disk import replace_file
from sfllava.notebooks import run_notebook, to_html
from sfllava.plots import save_figures
from sfllava.results import accuracy, costs, differences, export, failures, findings, load_results


def export_all(
    runs: str | Path | Iterable[str | Path], out: str | Path, only: Sequence[str | Path] = (), judge: str | None = None
) -> dict[str, list[Path] | str]:
    """Draw the figures of runs into a folder, and write their tables beside: CSV, Parquet and LaTeX.

    The same runs give the same bytes. What was made by name, or in words why not.
    """
    out, results = Path(out), load_results(runs, judge)
    made = save_figures(results, out, only)
    tables = {"accuracy": accuracy(results), "costs": costs(results), "failures": failures(results)}
    if len(set(results["name"])) > 1 and len(set(results["benchmark"])) == 1:
        tables["differences"] = differences(results)
    if len(set(results["type"])) > 1:
        tables["types"] = accuracy(results, ("name", "type"))
    for name, table in tables.items():
        made[f"{name} (table)"] = [export(table, out / f"{name}.{kind}") for kind in ("csv", "parquet", "tex")]
    replace_file(out / "findings.txt", f"{findings(results)}\n".encode())
    return made


def report(run: str | Path) -> Path:
    """Write report.html into a run folder: the executed figures notebook, with all tables and figures in it."""
    run = Path(run)
    parameters = {"runs": [str(run.resolve())], "out": str((run / "figures").resolve())}
    return to_html(run_notebook("figures", run / "report.ipynb", parameters, progress=False), code=False)
