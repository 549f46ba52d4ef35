"""Render ShapesQA, the benchmark that the model called tiny can answer."""

from __future__ import annotations

import argparse

from sfllava.cli.parser import group

ORDER = 9
EXAMPLES = ("sfllava render shapes", "sfllava render shapes-long --family long --videos 20 --seed 1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="folder to write; pass it to --root of other commands")
    setting = group(parser, "setting")
    setting.add_argument("--videos", type=int, default=40, metavar="N", help="number of videos (default: %(default)s)")
    setting.add_argument(
        "--family", choices=("short", "long"), default="short",
        help="short: 8 seconds, questions on details and moments; long: 1 to 5 minutes, questions that name what to "
        "look for (default: %(default)s)",
    )  # fmt: skip
    setting.add_argument(
        "--seed", type=int, default=0, metavar="S", help="other scenes for another seed (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    from sfllava.benchmarks.shapesqa import write_long_shapesqa, write_shapesqa

    write = write_long_shapesqa if arguments.family == "long" else write_shapesqa
    print(write(arguments.out, arguments.videos, arguments.seed))
    return 0
