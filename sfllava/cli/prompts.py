"""Extract the exact prompts from your checkout of the published code."""

from __future__ import annotations

import argparse

from sfllava.cli.parser import group

ORDER = 14
EXAMPLES = ("sfllava prompts import CHECKOUT --out prompts",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["import"], help="import: parse the checkout, run nothing of it")
    parser.add_argument("path", metavar="PATH", help="the checkout's folder")
    group(parser, "output").add_argument("--out", required=True, metavar="FOLDER", help="where the prompt pack goes")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.published.wordings import read_wordings, write_pack

    pack = read_wordings(arguments.path)
    if pack.wordings:
        write_pack(pack, arguments.out)
    print(pack)
    return 0 if pack.wordings else 1
