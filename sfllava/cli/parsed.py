"""Objects made of the options that several commands share."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.benchmarks import Benchmark
    from sfllava.models.base import VideoLM
    from sfllava.models.engines.options import EngineOptions
    from sfllava.prompts import Prompt
    from sfllava.runs.ray_runner import RayRunner
    from sfllava.settings import Setting

_NO_MODEL = (
    "no model given: pass --model PATH (or set SFLLAVA_MODEL) with a checkpoint folder or hub name, such as "
    "llava-hf/llava-v1.6-vicuna-7b-hf (`sfllava models` lists more); --model tiny is the small one in the package"
)


def load_model(arguments: argparse.Namespace) -> VideoLM:
    """Load the model of a command line."""
    from sfllava.models import load

    return load.load_model(checkpoint(arguments), **_placement(arguments))


def open_runner(arguments: argparse.Namespace) -> AbstractContextManager[VideoLM | RayRunner]:
    """Return what a run asks: the model, or Ray workers with a model each, which the context ends."""
    if arguments.workers is None and arguments.ray is None:
        if arguments.gpus_per_worker is not None:
            raise SfllavaError("--gpus-per-worker needs --workers or --ray")
        return nullcontext(load_model(arguments))
    from sfllava.runs.ray_runner import RayRunner

    gpus = 1 if arguments.gpus_per_worker is None else arguments.gpus_per_worker
    return RayRunner(checkpoint(arguments), arguments.workers, arguments.ray, gpus=gpus, **_placement(arguments))


def checkpoint(arguments: argparse.Namespace) -> str:
    """Return the checkpoint of --model or SFLLAVA_MODEL."""
    path = arguments.model or os.environ.get("SFLLAVA_MODEL")
    if not path:
        raise SfllavaError(_NO_MODEL)
    return path


def _placement(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("device", "dtype", "device_map", "vision_tower", "quantize")
    names += ("family", "context", "positions", "timestamps")
    return {name: getattr(arguments, name) for name in names} | {"engine": engine_options(arguments)}


def engine_options(arguments: argparse.Namespace, prefix: str = "") -> EngineOptions:
    """Return the engine that a command line chooses.

    Args:
        arguments: The parsed arguments of `add_engine`.
        prefix: As in `add_engine`.
    """
    from sfllava.models.engines.options import EngineOptions

    def value(name: str) -> object:
        return getattr(arguments, f"{prefix}{name}".replace("-", "_"), None)

    pairs = [split_pair(pair, f"--{prefix}vllm") for pair in arguments.__dict__[f"{prefix}vllm".replace("-", "_")]]
    return EngineOptions(
        str(value("engine")),
        value("exported_lm"),  # type: ignore[arg-type]
        value("tensor_parallel"),  # type: ignore[arg-type]
        value("gpu_memory"),  # type: ignore[arg-type]
        {name: read_value(text) for name, text in pairs},
    )


def settings(arguments: argparse.Namespace) -> list[Setting]:
    """Return a setting for each combination of frame rule, number of frames and aggregation."""
    from sfllava.settings import Setting

    found = (
        Setting(frames, name, frame_rule=rule)
        for rule in arguments.frame_rule for frames in arguments.frames for name in arguments.aggregation
    )  # fmt: skip
    return list({setting.name: setting for setting in found}.values())


def load_benchmarks(arguments: argparse.Namespace) -> list[Benchmark]:
    """Load the benchmarks that a command line names."""
    from sfllava.benchmarks import load_benchmark

    names = arguments.benchmark.split(",")
    if len(names) > 1 and (arguments.questions or arguments.videos):
        raise SfllavaError("several benchmarks are found under --root; --questions and --videos are for one")
    return [load_benchmark(name, **benchmark_files(arguments)) for name in names]


def benchmark_files(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return where the files of a benchmark are, as `load_benchmark` takes it."""
    found = {name: getattr(arguments, name) for name in ("questions", "videos", "root", "follow_links")}
    return found | {"subtitles": getattr(arguments, "subtitle_files", None)}


def evaluation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a run, as `evaluate` and `ablate` take them."""
    names = ("limit", "seed", "answer_mode", "max_new_tokens", "decoders", "decode_seconds", "subtitles", "protocol")
    return {"prompt": own_prompt(arguments)} | {name: getattr(arguments, name) for name in names}


def own_prompt(arguments: argparse.Namespace) -> Prompt | None:
    """Return the prompt of --prompt, or None."""
    from sfllava.prompts import load_prompt

    return load_prompt(arguments.prompt) if arguments.prompt else None


def split_pair(pair: str, option: str) -> tuple[str, str]:
    """Return the name and the value of NAME=VALUE."""
    name, equals, value = pair.partition("=")
    if not equals or not name:
        raise SfllavaError(f"{option} {pair}: needed NAME=VALUE")
    return name, value


def read_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the notebook parameters of -p by name."""
    return {name: read_value(value) for name, value in (split_pair(pair, "-p") for pair in arguments.parameters)}


def read_value(text: str) -> Any:
    """Return a number, true, false, null or list as JSON has it; anything else stays text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
