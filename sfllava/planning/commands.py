"""`sfllava plan`: what a run would take."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sfllava.types import SfllavaError

Command = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
Options = Callable[[argparse.ArgumentParser], None]


def add_plan(command: Command, with_settings: Options, with_choice: Options) -> None:
    """Add the subcommand; the two add the options that it shares with `evaluate`."""
    planned = command("plan", _plan, "Tokens, operations, memory, seconds and what fits, before anything is run.")
    planned.add_argument("benchmark", nargs="?", help="name (default: the ablation's own)")
    planned.add_argument(
        "--ablation", metavar="NAME", help="the settings of one, instead of --frames and --aggregation"
    )
    planned.add_argument("--budget", type=int, metavar="TOKENS", help="of an ablation that matches visual tokens")
    with_settings(planned)
    planned.add_argument("--model", metavar="NAME", help="7b, 13b, mistral-7b, 34b, a folder with config.json, or tiny")
    planned.add_argument("--roofline", metavar="FILE", help="of the device (default: measure this one, in seconds)")
    planned.add_argument("--measure", metavar="FILE", help="measure this device and write its roofline")
    planned.add_argument("--device", default="auto", help="what to measure: auto, cpu, cuda, cuda:1")
    planned.add_argument("--dtype", default="auto", choices=["auto", "float32", "float16", "bfloat16"])
    planned.add_argument("--questions", metavar="FILE|N", help="question file, or how many questions")
    planned.add_argument("--videos", metavar="DIR|N", help="how many videos (default: the published numbers)")
    planned.add_argument("--root", metavar="DIR", help="folder in which the question file is found")
    with_choice(planned)
    planned.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="default: %(default)s")
    planned.add_argument("--new-tokens", type=int, metavar="N", help="what answers are expected to take (default: all)")
    planned.add_argument("--workers", type=int, default=1, metavar="N", help="devices, each with a model (default: 1)")
    planned.add_argument(
        "--decoders", type=int, default=2, metavar="N", help="as in `evaluate`; a plan does not use it"
    )
    planned.add_argument("--video-frames", type=int, default=900, metavar="N", help="of a video (default: 900)")
    planned.add_argument("--json", action="store_true", help="print all numbers as JSON")


def _plan(a: argparse.Namespace) -> int:
    from sfllava.ablation import load_ablation
    from sfllava.benchmarks import load_benchmark
    from sfllava.planning.planner import plan
    from sfllava.planning.roofline import load_roofline, measure
    from sfllava.runs.identity import choose_questions
    from sfllava.settings import Setting

    if a.measure and a.roofline:
        raise SfllavaError("--measure writes a roofline of this device, --roofline reads one: pass one of them")
    roofline = load_roofline(a.roofline) if a.roofline else measure(a.device, a.dtype)
    if a.dtype not in ("auto", roofline.dtype):
        raise SfllavaError(f"{a.roofline} was measured in {roofline.dtype}, not in {a.dtype}: measure that too")
    if a.measure:
        print(f"{roofline.save(a.measure)}: {roofline}", file=sys.stderr, flush=True)
        if roofline.warning:
            print(f"warning: {roofline.warning}", file=sys.stderr, flush=True)
        if not (a.benchmark or a.ablation):
            return 0
    ablation = load_ablation(a.ablation) if a.ablation else None
    name = a.benchmark or (ablation.benchmark if ablation else None)
    model = a.model or os.environ.get("SFLLAVA_MODEL")
    if not name or not model:
        raise SfllavaError("needed a benchmark (or --ablation NAME), and --model: 7b, 13b, ..., or a checkpoint folder")
    counts = {key: _count(getattr(a, key)) for key in ("videos", "questions")}
    benchmark: Any = name
    if a.root or (a.questions and not counts["questions"]):
        if any(counts.values()):
            raise SfllavaError("--questions and --videos are numbers, or a file and a folder, not one of each")
        benchmark = load_benchmark(name, a.questions, a.videos, root=a.root)
        benchmark = replace(benchmark, questions=choose_questions(benchmark.questions, a.limit, a.seed))
    elif a.limit:
        raise SfllavaError("--limit chooses from a question file: pass --root or --questions FILE, or numbers of both")
    elif a.videos and not counts["videos"]:
        raise SfllavaError(f"--videos {a.videos}: without a question file a plan needs how many there are")
    settings = ablation or [Setting(frames, aggregation) for frames in a.frames for aggregation in a.aggregation]
    made = plan(
        model, settings, benchmark, roofline, **counts, budget=a.budget, max_new_tokens=a.max_new_tokens,
        new_tokens=a.new_tokens, answer_mode=a.read, workers=a.workers, video_frames=a.video_frames,
    )  # fmt: skip
    print(json.dumps(made.to_dict(), indent=1) if a.json else made)
    return 0 if made.fits else 1


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
