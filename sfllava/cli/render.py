"""Render ShapesQA, on which the model called tiny can be tried."""

from __future__ import annotations

import argparse

ORDER = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="folder; pass it to --root")
    parser.add_argument("--videos", type=int, default=40, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.benchmarks.shapesqa import write_shapesqa

    print(write_shapesqa(arguments.out, arguments.videos, arguments.seed))
    return 0
