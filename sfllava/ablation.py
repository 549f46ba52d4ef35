"""Ablations: one question, answered by many settings in a single run that shares their work; and their costs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sfllava import catalogue
from sfllava.analysis.loading import COSTS
from sfllava.benchmarks import Benchmark, BenchmarkError, LinkError, find_benchmark
from sfllava.files import read_object, write_json
from sfllava.runs.evaluate import Run, evaluate
from sfllava.runs.runner import LocalRunner, Runner
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.video import VideoError
from sfllava.settings import Setting
from sfllava.types import SfllavaError, Task

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo, VideoLM


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ablation:
    """An ablation, as defined by a file in ablations/.

    Attributes:
        name: the name of the file.
        question: the question that the ablation answers.
        benchmark: the default benchmark.
        make: (model, task, token budget) -> the settings.
        takes_tokens: whether it takes a token budget.
        paper: setting -> benchmark -> model size -> the paper's number.
    """

    name: str
    question: str
    benchmark: str
    make: Callable[..., list[Setting]]
    takes_tokens: bool
    paper: dict[str, dict[str, Any]] = field(default_factory=dict)

    def settings(self, model: ModelInfo, task: Task = "choice", tokens: int | None = None) -> list[Setting]:
        """Make the settings.

        Args:
            model: the model they are for.
            task: the task of the benchmark.
            tokens: visual tokens per video, for an ablation that matches a budget.

        Raises:
            SfllavaError: the ablation takes no token budget.
        """
        if tokens is not None and not self.takes_tokens:
            raise SfllavaError(f"ablation {self.name} has settings of its own and takes no token budget")
        return [setting.for_model(model) for setting in self.make(model, task, tokens)]


def load_ablation(name: str | Path) -> Ablation:
    """Load an ablation by name, or from a .py file of your own.

    The file needs a docstring whose first line is the question; BENCHMARK; and SETTINGS, a list, or a function
    settings(model, task, tokens) that returns one. PAPER and TOKENS (the default budget) are optional.

    Args:
        name: the name of a file in ablations/, or a path.

    Returns:
        The ablation.

    Raises:
        SfllavaError: the file lacks one of these.
    """
    module = catalogue.load("ablations", name)
    path = module.__file__
    settings = getattr(module, "SETTINGS", None)
    make = getattr(module, "settings", None)
    if not module.__doc__ or not isinstance(getattr(module, "BENCHMARK", None), str):
        raise SfllavaError(f"{path}: needed a docstring that asks the question, and BENCHMARK")
    if (settings is None) == (make is None):
        raise SfllavaError(f"{path}: needed either SETTINGS or a function settings(model, task, tokens)")
    tokens = getattr(module, "TOKENS", None)

    def chosen(model: ModelInfo, task: Task, n: int | None) -> list[Setting]:
        return make(model, task, tokens if n is None else n) if make else list(settings or ())

    question = module.__doc__.strip().splitlines()[0]
    paper = getattr(module, "PAPER", {})
    return Ablation(Path(str(path)).stem, question, module.BENCHMARK, chosen, tokens is not None, paper)


def ablate(
    ablation: Ablation | str | Path,
    model: VideoLM | Runner,
    benchmark: Benchmark | str,
    out: str | Path,
    *,
    root: str | Path | None = None,
    questions: str | Path | None = None,
    videos: str | Path | None = None,
    tokens: int | None = None,
    measure: bool = True,
    **options: Any,
) -> Run:
    """Evaluate all settings of an ablation in one sweep, into one run folder.

    Each video is decoded once and each of its frames encoded once for all settings. Settings with the same Slow pathway
    share its keys and values. Called again, it continues where it stopped, and adds new settings of the ablation.

    Args:
        ablation: the ablation, its name, or a file of your own.
        model: the model, or a runner.
        benchmark: a loaded benchmark, or its name, with root, questions and videos as in `load_benchmark`.
        out: the run folder.
        root: folder of the benchmarks.
        questions: the question file or folder.
        videos: the folder of videos.
        tokens: visual tokens per video, for an ablation that matches a budget.
        measure: whether to time each setting on its own on the first video and write the times to costs.json, since the
            times of a run, which shares work between settings, cannot be attributed to one.
        options: those of `evaluate`.

    Returns:
        The run, as from `evaluate`.
    """
    ablation = ablation if isinstance(ablation, Ablation) else load_ablation(ablation)
    benchmark = find_benchmark(benchmark, questions, videos, root)
    runner = model if isinstance(model, Runner) else LocalRunner(model)
    settings = ablation.settings(runner.info, benchmark.spec.task, tokens)
    file = Path(out) / COSTS
    known = read_object(file, "the costs of a run's settings", {}) if measure and file.exists() else {}
    run = evaluate(runner, benchmark, settings, out, ablation=ablation.name, **options)
    missing = [setting for setting in settings if setting.name not in known]
    if measure and missing and (found := runner.call(measure_costs, benchmark, missing)):
        write_json(file, known | found)
    return run


def measure_costs(model: VideoLM, benchmark: Benchmark, settings: list[Setting]) -> dict[str, dict[str, Any]]:
    """Measure what each setting costs alone, on the first video that can be read, in one pass after a warm-up.

    Args:
        model: the model.
        benchmark: its videos are tried in the order of the questions.
        settings: the settings to measure.

    Returns:
        Setting -> video, seconds_encode, seconds_prefill, seconds (their sum, without decoding), and on a GPU
        peak_bytes. Empty if no video can be read.
    """
    name, video = _first_video(model, benchmark, settings)
    if video is None:
        return {}
    before = model.info.prompt_ids(benchmark.questions[0])[0]
    found: dict[str, dict[str, Any]] = {}
    for setting in [settings[0], *settings]:  # the first one warms up and is measured again
        positions = video.positions(setting.uniform_sample)
        frames, seconds = video.frames[positions], video.pts_seconds[positions]
        try:
            _start(model)
            start = time.perf_counter()
            grid = model.encode(setting.images(frames))
            encoded = _done(model)
            model.prefill(before, model.tokens(setting, grid, seconds))
            prefilled = _done(model)
        except torch.OutOfMemoryError as error:
            log.warning("%s: its cost is unknown: %s", setting.name, error)
            continue
        found[setting.name] = {
            "video": name,
            "seconds_encode": encoded - start,
            "seconds_prefill": prefilled - encoded,
            "seconds": prefilled - start,
        }
        if model.info.device.type == "cuda":
            found[setting.name]["peak_bytes"] = torch.cuda.max_memory_allocated(model.info.device)
    return found


def _first_video(model: VideoLM, benchmark: Benchmark, settings: list[Setting]) -> tuple[str, Any]:
    """The name and frames of the first video that can be read; None instead of frames if there is none."""
    size = (model.info.image_size, model.info.image_size)
    with DecodePool(1) as pool:
        for name in dict.fromkeys(question.video for question in benchmark.questions):
            try:
                path = benchmark.find_video(name)
                return name, pool.submit(path, list({s.uniform_sample for s in settings}), size).result()
            except (BenchmarkError, LinkError, VideoError):
                continue
    return "", None


def _start(model: VideoLM) -> None:
    if model.info.device.type == "cuda":
        torch.cuda.synchronize(model.info.device)
        torch.cuda.reset_peak_memory_stats(model.info.device)


def _done(model: VideoLM) -> float:
    if model.info.device.type == "cuda":
        torch.cuda.synchronize(model.info.device)
    return time.perf_counter()
