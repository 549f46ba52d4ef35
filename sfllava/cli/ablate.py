"""Sweep the settings of an ablation in one run, and write a report."""

from __future__ import annotations

import argparse

from sfllava.cli import options, parsed, selecting, tracking
from sfllava.cli.parser import group
from sfllava.cli.scored import scores_text

ORDER = 6
EXAMPLES = (
    "sfllava ablate fast_grid --root DATA --model llava-hf/llava-v1.6-vicuna-7b-hf --out runs/fast_grid",
    "sfllava ablate methods --benchmark egoschema --budget 1500 --root DATA --model 7B_FOLDER --out runs/methods",
    "sfllava ablate my_ablation.py --root DATA --model tiny --limit 100 --rows-only --out runs/mine",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ablation = parser.add_argument(
        "ablation", metavar="ABLATION", help="name, such as fast_grid (`sfllava list ablations`), or your own .py file"
    )
    options.complete_with_catalogue(ablation, "ablations")
    benchmark = group(parser, "input").add_argument(
        "--benchmark", metavar="NAME", help="what is asked (default: the ablation's own benchmark)"
    )
    options.complete_with(benchmark, options.benchmark_names)
    group(parser, "setting").add_argument(
        "--budget", type=int, metavar="TOKENS", help="visual tokens, for an ablation that matches them"
    )
    group(parser, "output").add_argument(
        "--rows-only", action="store_true", help="neither time each setting on its own nor write a report"
    )
    selecting.add_source(parser)
    options.add_benchmark_files(parser)
    options.add_run(parser)
    tracking.add_track(parser)
    options.add_model(parser, 128)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.ablation import ablate, load_ablation
    from sfllava.benchmarks import find_benchmark
    from sfllava.reports.export import report

    ablation = load_ablation(arguments.ablation)
    benchmark = find_benchmark(arguments.benchmark or ablation.benchmark, **parsed.benchmark_files(arguments))
    chosen = parsed.evaluation_options(arguments) | {"retry_failed": arguments.retry_failed}
    chosen |= {"tokens": arguments.budget, "measure": not arguments.rows_only}
    chosen |= {"selection": selecting.selection_source(arguments)}
    with parsed.open_runner(arguments) as model:
        result = ablate(ablation, model, benchmark, arguments.out, **chosen)
    print(scores_text(result), flush=True)
    if benchmark.spec.task != "describe" and not arguments.rows_only:
        print(report(result.path))
    tracking.send(arguments, result.path)
    return 0 if any(scores["answered"] for scores in result.scores.values()) else 1
