"""Show accuracies and paired differences of runs on the same questions."""

from __future__ import annotations

import argparse

from sfllava.cli import options
from sfllava.cli.parser import group

ORDER = 7.2
EXAMPLES = (
    "sfllava compare runs/nextqa",
    "sfllava compare runs/7b runs/13b --judge gpt-4o-mini-2024-07-18",
    "sfllava compare runs/nextqa --rows answers.csv",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_runs(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--baseline", metavar="SETTING", help="compare all others with this one (default: the first)")
    chosen.add_argument("--all-pairs", action="store_true", help="compare each pair of settings")
    output = group(parser, "output")
    shown = output.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print all numbers as JSON")
    shown.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    output.add_argument("--csv", metavar="FILE", help="write the table as .csv, .parquet or .tex")
    output.add_argument(
        "--rows", metavar="FILE", help="write every answer, and whether it is right, as .csv or .parquet"
    )


def run(arguments: argparse.Namespace) -> int:
    from sfllava.analysis.compare import compare
    from sfllava.analysis.graded import graded_rows
    from sfllava.analysis.tables import export

    found = compare(arguments.runs, arguments.baseline, arguments.judge, arguments.all_pairs)
    if arguments.csv:
        export(found.table(), arguments.csv)
    if arguments.rows:
        export(graded_rows(arguments.runs, arguments.judge), arguments.rows)
    print(found.json() if arguments.json else found.markdown() if arguments.markdown else found.text())
    return 0
