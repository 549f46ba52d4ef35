"""Write the report of a run, or a leaderboard of several, as one HTML page."""

from __future__ import annotations

import argparse

from sfllava.cli import options

ORDER = 8
EXAMPLES = (
    "sfllava report runs/fast_grid",
    "sfllava report runs/7b runs/13b --out leaderboard.html",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_runs(parser)
    parser.add_argument(
        "--out", metavar="FILE",
        help="the page (default: report.html in the folder of one run, with its figures next to it; leaderboard.html "
        "here for several runs)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from sfllava.reports.export import report

    out = arguments.out or ("leaderboard.html" if len(arguments.runs) > 1 else None)
    print(report(arguments.runs, out, arguments.judge))
    return 0
