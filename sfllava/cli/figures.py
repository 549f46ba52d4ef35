"""Draw all figures of runs, and export their tables."""

from __future__ import annotations

import argparse

from sfllava.cli import options
from sfllava.cli.parser import group

ORDER = 8
EXAMPLES = (
    "sfllava figures runs/fast_grid --out figures",
    "sfllava figures runs/7b runs/13b --out figures --only budget my_figure.py",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_runs(parser)
    output = group(parser, "output")
    output.add_argument("--out", required=True, metavar="DIR", help="folder for the figures and tables")
    only = output.add_argument(
        "--only", nargs="+", default=[], metavar="FIGURE",
        help="names (`sfllava list figures`), or .py files of your own (default: all)",
    )  # fmt: skip
    options.complete_with_catalogue(only, "figures")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.reports.export import export_all

    for name, made in export_all(arguments.runs, arguments.out, arguments.only, arguments.judge).items():
        print(f"{name}: {made if isinstance(made, str) else ', '.join(path.name for path in made)}")
    return 0
