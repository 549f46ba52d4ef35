"""Describe checkpoints (family, grid, context, prompt format, size) without loading them."""

from __future__ import annotations

import argparse
import json
import sys

from sfllava.cli.parser import group
from sfllava.types import SfllavaError

ORDER = 16
EXAMPLES = ("sfllava models", "sfllava models 7b qwen2.5-vl-7b", "sfllava models CHECKPOINT_FOLDER --json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="checkpoint folders or names (default: all names)")
    group(parser, "output").add_argument("--json", action="store_true", help="print one JSON object per model")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.models.describe import describe_all, known_table
    from sfllava.models.known import KNOWN

    if not arguments.models and not arguments.json:
        print(known_table())
        return 0
    failed = 0
    for found in describe_all(arguments.models or list(KNOWN)):
        if isinstance(found, SfllavaError):
            print(f"sfllava: {found}", file=sys.stderr)
            failed += 1
        else:
            print(json.dumps(found.to_dict()) if arguments.json else found)
    return 1 if failed else 0
