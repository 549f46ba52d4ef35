"""Score benchmarks; the same command resumes an interrupted run."""

from __future__ import annotations

import argparse
from pathlib import Path

from sfllava.cli import options, parsed, selecting, tracking
from sfllava.cli.scored import scores_text

ORDER = 2
EXAMPLES = (
    "sfllava evaluate nextqa --root DATA --model llava-hf/llava-v1.6-vicuna-7b-hf --out runs/nextqa",
    "sfllava evaluate open --questions my.csv --videos clips --model tiny --frames 8 16 --out runs/mine",
    "sfllava evaluate videomme --root DATA --model 7B_FOLDER --protocol lmms-eval --out runs/videomme",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_benchmark(parser)
    options.add_settings(parser)
    selecting.add_selections(parser)
    selecting.add_source(parser)
    options.add_run(parser)
    tracking.add_track(parser)
    options.add_model(parser, 128)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.runs.evaluate import prepare

    settings = selecting.settings(arguments)
    chosen = parsed.evaluation_options(arguments)
    chosen["selection"] = selecting.selection_source(arguments)
    benchmarks = parsed.load_benchmarks(arguments)
    for benchmark in benchmarks:
        benchmark.require_videos()
    out = Path(arguments.out)
    answered = []
    with parsed.open_runner(arguments) as model:
        # all are prepared first, so that an error in the last shows before the hours that the first takes
        evaluations = [
            prepare(model, benchmark, settings, out / benchmark.name if len(benchmarks) > 1 else out, **chosen)
            for benchmark in benchmarks
        ]
        for evaluation in evaluations:
            result = evaluation.run(retry_failed=arguments.retry_failed)
            print(scores_text(result), flush=True)
            tracking.send(arguments, result.path)
            answered.append(any(scores["answered"] for scores in result.scores.values()))
    return 0 if all(answered) else 1
