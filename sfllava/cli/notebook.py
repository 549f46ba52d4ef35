"""Run a notebook with parameters (papermill)."""

from __future__ import annotations

import argparse

from sfllava.cli import options, parsed

ORDER = 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_notebook(parser)
    parser.add_argument("out")
    options.add_parameters(parser)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.notebooks import run_notebook

    print(run_notebook(arguments.notebook, arguments.out, parsed.read_parameters(arguments)))
    return 0
