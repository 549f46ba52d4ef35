"""Count questions and find videos, before a run takes GPU hours."""

from __future__ import annotations

import argparse

from sfllava.cli import options, parsed

ORDER = 3
EXAMPLES = ("sfllava check nextqa,egoschema --root DATA", "sfllava check open --questions my.csv --videos clips")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_benchmark(parser)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.runs.check import check

    checks = [check(benchmark, decoders=arguments.decoders) for benchmark in parsed.load_benchmarks(arguments)]
    print(*checks, sep="\n")
    return 0 if all(found.ok for found in checks) else 1
