"""Write the results of runs: tables and figures as files, and a report in HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from sfllava.analysis.breakdown import breakdowns, headlines
from sfllava.analysis.differences import by_benchmark, describe_findings, headline_differences, paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy, costs, failures
from sfllava.analysis.tables import export
from sfllava.files import RunError, folder_of_parts, write_file
from sfllava.plots import save_figures
from sfllava.reports.page import make_page


def export_all(
    runs: str | Path | Iterable[str | Path], out: str | Path, only: Sequence[str | Path] = (), judge: str | None = None
) -> dict[str, list[Path] | str]:
    """Draw the figures of runs into a folder, with their tables as CSV, Parquet and LaTeX.

    The files are written only once all are made, so that an error leaves the folder unchanged.
    The same runs give the same bytes.

    Args:
        runs: one or many run folders.
        out: the folder; created if it does not exist.
        only: the figures to draw, by name or as files of your own. Default: all.
        judge: the judge whose verdicts decide open questions. Default: offline scores.

    Returns:
        Name -> its files, or the reason why there are none.
    """
    out, results = Path(out), load_results(runs, judge)
    files = ("csv", "parquet", "tex")
    made: dict[str, list[Path] | str] = {}
    with folder_of_parts(out) as parts:
        made |= save_figures(results, parts, only)
        made_tables = tables(results)
        for name, table in made_tables.items():
            made[f"{name} (table)"] = (
                table if isinstance(table, str) else [export(table, parts / f"{name}.{kind}") for kind in files]
            )
        # those of one benchmark are not computed again
        known = [
            table if isinstance(table, pd.DataFrame) and len(table["benchmark"].unique()) == 1 else None
            for table in map(made_tables.get, ("differences", "headline_differences"))
        ]
        write_file(parts / "findings.txt", f"{describe_findings(results, None, *known)}\n".encode())
    return {name: f if isinstance(f, str) else [out / path.name for path in f] for name, f in made.items()}


def tables(results: pd.DataFrame) -> dict[str, pd.DataFrame | str]:
    """Make the tables of results.

    Args:
        results: from `load_results`.

    Returns:
        Name -> table: `accuracy`, `costs` and `failures`; `differences` if there are several settings; `types` if there
        are several question types; `by_duration` and the like if there are several of such groups; `headlines` if a
        benchmark reports another number than the accuracy over all questions, and with several settings
        `headline_differences` of it, where `differences` has those of the accuracy. If settings cannot be compared, for
        example in an unfinished run, `differences` is the reason.
    """
    found: dict[str, pd.DataFrame | str] = {
        "accuracy": accuracy(results, ("benchmark", "name")), "costs": costs(results), "failures": failures(results),
    }  # fmt: skip
    if len(results["name"].unique()) > 1:
        try:
            parts = [paired_differences(part).assign(benchmark=name) for name, part in by_benchmark(results)]
            columns = ["benchmark", *parts[0].columns.drop("benchmark")]
            found["differences"] = pd.concat(parts).reindex(columns=columns)
            if len(official := headline_differences(results)):
                found["headline_differences"] = official
        except RunError as error:
            found["differences"] = f"none, since {error}"
    if len(results["type"].unique()) > 1:
        found["types"] = accuracy(results, ("benchmark", "name", "type"))
    found |= {f"by_{column}": table for column, table in breakdowns(results).items() if column != "type"}
    official = headlines(results)
    return found | ({"headlines": official} if len(official) else {})


def report(runs: str | Path | Iterable[str | Path], out: str | Path | None = None, judge: str | None = None) -> Path:
    """Write the report of a run, or a leaderboard of several runs, as one HTML page that loads nothing else.

    Runs that are not comparable, since they have other questions, another judge or another protocol, are not ranked
    together; the page says what differs.

    Args:
        runs: One or many run folders.
        out: The file to write. Default: report.html in the folder of a single run, whose figures and tables are then
            also written as files to its folder `figures`.
        judge: The judge whose verdicts decide open questions. Default: offline scores.

    Returns:
        The file.

    Raises:
        RunError: A run cannot be read or has no such score, or several runs were given and no file to write.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if out is None and len(folders) != 1:
        raise RunError(f"needed a file to write for a report of {len(folders)} runs, got none")
    page = make_page(folders, judge)
    if out is None:
        export_all(folders, folders[0] / "figures", judge=judge)
        out = folders[0] / "report.html"
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, page.encode("utf-8", "backslashreplace"))
    return out
