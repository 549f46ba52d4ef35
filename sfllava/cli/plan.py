"""Tokens, operations, memory, seconds and what fits, before anything is run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sfllava.cli import options, selecting
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.planning.roofline import Roofline

ORDER = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    benchmark = parser.add_argument("benchmark", nargs="?", help="name (default: the ablation's own)")
    options.complete_with(benchmark, options.benchmark_names)
    ablation = parser.add_argument(
        "--ablation", metavar="NAME", help="the settings of one, instead of --frames and --aggregation"
    )
    options.complete_with_catalogue(ablation, "ablations")
    parser.add_argument("--budget", type=int, metavar="TOKENS", help="of an ablation that matches visual tokens")
    options.add_settings(parser)
    selecting.add_selections(parser)
    parser.add_argument("--model", metavar="NAME", help="a name of `sfllava models`, such as 7b, or a folder")
    parser.add_argument("--roofline", metavar="FILE", help="of the device (default: measure this one, in seconds)")
    parser.add_argument("--measure", metavar="FILE", help="measure this device and write its roofline")
    options.add_device(parser, "what to measure: auto, cpu, cuda, cuda:1")
    options.add_quantize(parser)
    parser.add_argument("--questions", metavar="FILE|N", help="question file, or how many questions")
    parser.add_argument("--videos", metavar="DIR|N", help="how many videos (default: the published numbers)")
    parser.add_argument("--root", metavar="DIR", help="folder in which the question file is found")
    options.add_selection(parser)
    options.add_new_tokens(parser, 128)
    parser.add_argument("--new-tokens", type=int, metavar="N", help="expected length of an answer (default: all)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="devices, each with a model (default: 1)")
    options.add_decoders(parser, "as in `evaluate`; a plan does not use it")
    parser.add_argument("--video-frames", type=int, default=900, metavar="N", help="of a video (default: 900)")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.ablation import load_ablation
    from sfllava.planning.planner import plan

    a = arguments
    roofline = _find_roofline(a)
    if a.measure and not (a.benchmark or a.ablation):
        return 0
    ablation = load_ablation(a.ablation) if a.ablation else None
    name = a.benchmark or (ablation.benchmark if ablation else None)
    model = a.model or os.environ.get("SFLLAVA_MODEL")
    if not name or not model:
        raise SfllavaError("needed a benchmark (or --ablation NAME), and --model: 7b, 13b, ..., or a checkpoint folder")
    benchmark, counts = _find_questions(a, name)
    settings = ablation or selecting.settings(a)
    made = plan(
        model, settings, benchmark, roofline, **counts, budget=a.budget, max_new_tokens=a.max_new_tokens,
        new_tokens=a.new_tokens, answer_mode=a.answer_mode, workers=a.workers, video_frames=a.video_frames,
        quantize=a.quantize,
    )  # fmt: skip
    print(json.dumps(made.to_dict(), indent=1) if a.json else made)
    return 0 if made.fits else 1


def _find_roofline(a: argparse.Namespace) -> Roofline:
    """Return the roofline of --roofline, or measure this device, and write that to --measure."""
    from sfllava.planning.roofline import load_roofline, measure

    if a.measure and a.roofline:
        raise SfllavaError("--measure writes a roofline of this device, --roofline reads one: pass one of them")
    roofline = load_roofline(a.roofline) if a.roofline else measure(a.device, a.dtype)
    if a.dtype not in ("auto", roofline.dtype):
        raise SfllavaError(f"{a.roofline} was measured in {roofline.dtype}, not in {a.dtype}: measure that too")
    if a.measure:
        print(f"{roofline.save(a.measure)}: {roofline}", file=sys.stderr, flush=True)
        if roofline.warning:
            print(f"warning: {roofline.warning}", file=sys.stderr, flush=True)
    return roofline


def _find_questions(a: argparse.Namespace, name: str) -> tuple[Any, dict[str, int | None]]:
    """Return a loaded benchmark or its name, and how many videos and questions to plan for, where numbers say so."""
    from sfllava.benchmarks import load_benchmark
    from sfllava.runs.identity import choose_questions

    counts = {key: _count(getattr(a, key)) for key in ("videos", "questions")}
    if a.root or (a.questions and not counts["questions"]):
        if any(counts.values()):
            raise SfllavaError("--questions and --videos are numbers, or a file and a folder, not one of each")
        benchmark = load_benchmark(name, a.questions, a.videos, root=a.root)
        return replace(benchmark, questions=choose_questions(benchmark.questions, a.limit, a.seed)), counts
    if a.limit:
        raise SfllavaError("--limit chooses from a question file: pass --root or --questions FILE, or numbers of both")
    if a.videos and not counts["videos"]:
        raise SfllavaError(f"--videos {a.videos}: without a question file a plan needs how many there are")
    return name, counts


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
