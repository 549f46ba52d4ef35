"""Read an output folder of the published code into a run folder."""

from __future__ import annotations

import argparse

from sfllava.cli import options
from sfllava.types import SfllavaError

ORDER = 13


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="the folder with merge.jsonl, or its OUTPUT_DIR")
    benchmark = parser.add_argument("--benchmark", required=True, metavar="NAME")
    options.complete_with(benchmark, options.benchmark_names)
    parser.add_argument("--questions", metavar="FILE", help="question file (vcgbench: its folder)")
    parser.add_argument("--root", metavar="DIR", help="folder in which it is found, instead")
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder to write")
    parser.add_argument("--config-name", metavar="NAME", help="which CONFIG_NAME, where there are several")
    parser.add_argument("--judged", metavar="DIR", help="its judge's files: TEMP_DIR, or one judge's folder")
    parser.add_argument("--judge", metavar="NAME", help="which judge, or what to call it (default: its folder)")
    parser.add_argument("--frames", type=int, metavar="N", help="the setting it was run with, to compare with ours")
    parser.add_argument("--aggregation", metavar="NAME", help="likewise")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.benchmarks import load_benchmark
    from sfllava.published.importing import import_outputs
    from sfllava.settings import Setting

    a = arguments
    if (a.frames is None) != (a.aggregation is None):
        raise SfllavaError("--frames and --aggregation go together")
    setting = Setting(a.frames, a.aggregation) if a.frames is not None else None
    benchmark = load_benchmark(a.benchmark, a.questions, root=a.root)
    imported = import_outputs(
        a.folder, benchmark, a.out, setting=setting, config_name=a.config_name, judged=a.judged, judge=a.judge
    )
    print(imported)
    return 0 if imported.outputs.predictions else 1
