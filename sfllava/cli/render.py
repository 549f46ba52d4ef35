"""Render ShapesQA, on which the model called tiny can be tried."""

from __future__ import annotations

import argparse

ORDER = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="folder; pass it to --root")
    parser.add_argument("--videos", type=int, default=40, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--family", choices=("short", "long"), default="short",
        help="short: 8 seconds, questions on details and moments; long: 1 to 5 minutes, questions that name what to "
        "look for; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.benchmarks.shapesqa import write_long_shapesqa, write_shapesqa

    write = write_long_shapesqa if arguments.family == "long" else write_shapesqa
    print(write(arguments.out, arguments.videos, arguments.seed))
    return 0
