"""Predict tokens, operations, memory, seconds and what fits, before a run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sfllava.cli import options, selecting
from sfllava.cli.parser import group
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.planning import Plan
    from sfllava.planning.roofline import Roofline

ORDER = 15
EXAMPLES = (
    "sfllava plan nextqa --model 7b --device h100",
    "sfllava plan nextqa --ablation fast_grid --model 34b --device presets --quantize nf4",
    "sfllava plan --measure gpu.json",
    "sfllava plan videomme --model qwen2.5-vl-7b --roofline gpu.json --workers 4 --new-tokens 5",
)
_DEVICES = (
    "what to plan for: auto, cpu, cuda or cuda:1 of this machine, which is measured; or a device by its published "
    "figures, such as h100 (`sfllava list devices`); or presets, for all of those (default: auto)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs, setting, model = (group(parser, title) for title in ("input", "setting", "model"))
    output, speed = group(parser, "output"), group(parser, "speed and failures")
    benchmark = parser.add_argument(
        "benchmark", nargs="?", metavar="BENCHMARK", help="name (default: the ablation's own)"
    )
    options.complete_with(benchmark, options.benchmark_names)
    inputs.add_argument("--questions", metavar="FILE|N", help="question file, or how many questions")
    inputs.add_argument("--videos", metavar="DIR|N", help="how many videos (default: the published numbers)")
    inputs.add_argument("--root", metavar="DIR", help="folder in which the question file is found")
    inputs.add_argument(
        "--video-frames", type=int, default=900, metavar="N", help="frames of a video (default: %(default)s)"
    )
    ablation = setting.add_argument(
        "--ablation", metavar="NAME", help="the settings of an ablation, instead of --frames and --aggregation"
    )
    options.complete_with_catalogue(ablation, "ablations")
    setting.add_argument("--budget", type=int, metavar="TOKENS", help="of an ablation that matches visual tokens")
    options.add_settings(parser)
    selecting.add_selections(parser)
    options.add_prompt_text(parser)
    options.add_selection(parser)
    options.add_new_tokens(parser, 128)
    setting.add_argument(
        "--new-tokens", type=int, metavar="N", help="expected length of an answer (default: --max-new-tokens)"
    )
    model.add_argument("--model", metavar="NAME", help="a name of `sfllava models`, such as 7b, or a folder")
    options.add_device(parser, _DEVICES)
    model.add_argument("--roofline", metavar="FILE", help="measurements of the device, from --measure on it")
    options.add_quantize(parser)
    output.add_argument("--measure", metavar="FILE", help="measure this device, and write the measurements to FILE")
    output.add_argument("--json", action="store_true", help="print all numbers as JSON")
    speed.add_argument("--workers", type=int, default=1, metavar="N", help="devices, each with a model (default: 1)")
    options.add_decoders(parser, "as in `evaluate`; a plan does not use it")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.ablation import load_ablation
    from sfllava.planning import plan, plan_presets
    from sfllava.planning.plans import format_devices

    a = arguments
    presets = a.device == "presets"
    roofline = None if presets and not (a.measure or a.roofline) else _find_roofline(a)
    if a.measure and not (a.benchmark or a.ablation):
        return 0
    ablation = load_ablation(a.ablation) if a.ablation else None
    name = a.benchmark or (ablation.benchmark if ablation else None)
    model = a.model or os.environ.get("SFLLAVA_MODEL")
    if not name or not model:
        raise SfllavaError("needed a benchmark (or --ablation NAME), and --model: 7b, 13b, ..., or a checkpoint folder")
    benchmark, counts = _find_questions(a, name)
    given = (model, ablation or selecting.settings(a), benchmark)
    chosen = {**counts, "max_new_tokens": a.max_new_tokens, "new_tokens": a.new_tokens, "answer_mode": a.answer_mode}
    chosen |= {"budget": a.budget, "workers": a.workers, "video_frames": a.video_frames, "quantize": a.quantize}
    chosen |= {"protocol": a.protocol, "subtitles": a.subtitles}
    made = plan(*given, roofline, **chosen) if roofline else None
    others = plan_presets(*given, a.dtype, **chosen) if _wants_presets(a, roofline) else {}
    if a.json:
        print(json.dumps(_as_dict(made, others), indent=1))
    else:
        one = made or next(iter(others.values()))
        print(made if made else f"{one.heading()}\n\n{format_devices(others)}\n\n{_about_presets(one)}")
        if made and others:
            print(f"\nOn other devices ({_about_presets(next(iter(others.values())))}):\n{format_devices(others)}")
    return 0 if (made.fits if made else any(other.fits for other in others.values())) else 1


def _wants_presets(a: argparse.Namespace, roofline: Roofline | None) -> bool:
    """Return whether devices that are not here are planned for: if asked to, or if there is no GPU here."""
    return roofline is None or (a.device == "auto" and not a.roofline and not a.measure and roofline.kind == "cpu")


def _about_presets(plan: Plan) -> str:
    return (
        "estimates from published peak figures and assumed efficiencies, not measured; `--device NAME` has the details "
        f"of one; {plan.device.dtype}"
    )


def _as_dict(made: Plan | None, others: dict[str, Plan]) -> dict[str, Any]:
    """Return all numbers of a plan, and what is most important of those for devices that are not here."""
    found = made.to_dict() if made else {}
    if others:
        found["presets"] = {
            name: {
                "device": plan.device.device, "source": plan.device.source, "fits": plan.fits,
                "peak_bytes": {s.name: s.peak_bytes for s in plan.settings if s.fits}, "hours": plan.hours,
            }
            for name, plan in others.items()
        }  # fmt: skip
    return found


def _find_roofline(a: argparse.Namespace) -> Roofline:
    """Return the roofline of --roofline, of a preset, or of this device, measured, and written to --measure."""
    from sfllava.planning.presets import is_preset, preset_roofline
    from sfllava.planning.roofline import load_roofline, measure

    if a.measure and a.roofline:
        raise SfllavaError("--measure writes a roofline of this device, --roofline reads one: pass one of them")
    if is_preset(a.device):
        if a.measure or a.roofline:
            other = "--measure" if a.measure else "--roofline"
            raise SfllavaError(
                f"--device {a.device} plans with published figures, {other} with measured ones: pass one"
            )
        return preset_roofline(a.device, a.dtype)
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
