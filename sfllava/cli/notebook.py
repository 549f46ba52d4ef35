"""Run a notebook with parameters (papermill)."""

from __future__ import annotations

import argparse

from sfllava.cli import options, parsed

ORDER = 11
EXAMPLES = (
    "sfllava notebook ask out.ipynb -p model=tiny -p video=clip.mp4",
    "sfllava notebook my.ipynb out.ipynb -p frames=16",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_notebook(parser)
    parser.add_argument("out", metavar="OUT", help="the executed notebook, to write")
    options.add_parameters(parser)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.notebooks import run_notebook

    print(run_notebook(arguments.notebook, arguments.out, parsed.read_parameters(arguments)))
    return 0
