"""List the runs below a folder, with benchmark, accuracy and progress."""

from __future__ import annotations

import argparse
from pathlib import Path

from sfllava.cli.parser import group

ORDER = 7
EXAMPLES = (
    "sfllava runs",
    "sfllava runs runs --filter benchmark=nextqa state=complete --sort accuracy",
    "sfllava runs runs --html runs.html",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="default: this folder")
    parser.add_argument(
        "--filter", nargs="+", default=[], metavar="COLUMN=TEXT",
        help="keep rows whose run, benchmark, model, setting, judge, state, ... contains a text, such as model=7b "
        "state=unfinished; * and ? are wildcards",
    )  # fmt: skip
    parser.add_argument("--sort", default="", metavar="COLUMN", help="such as accuracy or date, largest first")
    output = group(parser, "output")
    output.add_argument("--csv", metavar="FILE", help="write the table as CSV, with all columns")
    output.add_argument("--html", metavar="FILE", help="write it as a page that can be sorted and searched")
    output.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.analysis.overview import filter_runs, load_runs, sort_runs
    from sfllava.analysis.overview_text import format_runs, runs_page
    from sfllava.files import as_csv, as_json, write_file

    table = filter_runs(load_runs(arguments.folder), arguments.filter)
    if arguments.sort:
        table = sort_runs(table, arguments.sort)
    if arguments.csv:
        write_file(Path(arguments.csv), as_csv(table).encode())
    if arguments.html:
        title = f"Runs in {Path(arguments.folder).absolute().name}"
        write_file(Path(arguments.html), runs_page(table, title).encode())
    print(as_json(table.to_dict("records")) if arguments.json else format_runs(table))
    return 0
