"""Accuracies and paired differences of runs on the same questions."""

from __future__ import annotations

import argparse

from sfllava.cli import options

ORDER = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_runs(parser)
    parser.add_argument("--reference", metavar="SETTING", help="compare all with this one only")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.analysis.compare import compare

    print(compare(arguments.runs, arguments.reference, arguments.judge))
    return 0
