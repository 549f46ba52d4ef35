"""Draw all figures of runs, and export their tables."""

from __future__ import annotations

import argparse

from sfllava.cli import options

ORDER = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_runs(parser)
    parser.add_argument("--out", required=True, metavar="DIR")
    only = parser.add_argument(
        "--only", nargs="+", default=[], metavar="FIGURE", help="names, or .py files of your own"
    )
    options.complete_with_catalogue(only, "figures")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.reports.export import export_all

    for name, made in export_all(arguments.runs, arguments.out, arguments.only, arguments.judge).items():
        print(f"{name}: {made if isinstance(made, str) else ', '.join(path.name for path in made)}")
    return 0
