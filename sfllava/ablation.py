"""Ablations: one question, answered by many settings in a single run that shares their work; and their costs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sfllava import catalogue
from sfllava.analysis.loading import COSTS
from sfllava.benchmarks import Benchmark, BenchmarkError, LinkError, find_benchmark
from sfllava.files import read_object, write_json
from sfllava.runs.evaluate import Run, evaluate
from sfllava.runs.frame_choice import FrameChooser
from sfllava.runs.runner import LocalRunner, Runner
from sfllava.runs.selection_source import SelectionSource
from sfllava.runs.video_choice import Decode, choose_frames
from sfllava.sampler.images import FrameSize
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.sampling import AnySample
from sfllava.sampler.video import Video, VideoError
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError, Task

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
    missing, chosen_with = [s for s in settings if s.name not in known], options.get("selection")
    if measure and missing and (found := runner.call(measure_costs, benchmark, missing, chosen_with)):
        write_json(file, known | found)
    return run


def measure_costs(
    model: VideoLM, benchmark: Benchmark, settings: list[Setting], source: SelectionSource | None = None
) -> dict[str, dict[str, Any]]:
    """Measure what each setting costs alone, on the first video that can be read, in one pass after a warm-up.

    A setting that chooses frames is measured with those of the video's first question; choosing them is not measured.

    Args:
        model: the model.
        benchmark: its videos are tried in the order of the questions.
        settings: the settings to measure.
        source: what frames are chosen with.

    Returns:
        Setting -> video, seconds_encode, seconds_prefill, seconds (their sum, without decoding), on a GPU peak_bytes,
        and for a setting that chooses frames without_scoring, which is True. Empty if no video can be read.
    """
    name, video, bound = _first_video(model, benchmark, settings, source)
    if video is None or not bound:
        return {}
    before = model.info.prompt_ids(benchmark.questions[0])[0]
    found: dict[str, dict[str, Any]] = {}
    for setting in [bound[0], *bound]:  # the first one warms up and is measured again
        positions = video.positions(setting.sample)
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
            **({"without_scoring": True} if setting.question_aware else {}),
        }
        if model.info.device.type == "cuda":
            found[setting.name]["peak_bytes"] = torch.cuda.max_memory_allocated(model.info.device)
    return found


def _first_video(
    model: VideoLM, benchmark: Benchmark, settings: list[Setting], source: SelectionSource | None
) -> tuple[str, Any, list[Setting]]:
    """Return the name and frames of the first video that can be read, and the settings with the frames chosen there.

    Without such a video, there are no frames. A setting whose frames cannot be chosen is left out.
    """
    size, first = (model.info.image_size, model.info.image_size), dict[str, Question]()
    for question in benchmark.questions:
        first.setdefault(question.video, question)
    with DecodePool(1) as pool:
        for name, question in first.items():
            try:
                path = benchmark.find_video(name)
                read = partial(_read, pool, path)
                bound = _with_frames(model, benchmark, settings, source, path, question, read)
                return name, read(list({s.sample for s in bound}), size) if bound else None, bound
            except (BenchmarkError, LinkError, VideoError):
                continue
    return "", None, []


def _with_frames(
    model: VideoLM, benchmark: Benchmark, settings: list[Setting], source: SelectionSource | None, path: Path,
    question: Question, read: Decode,
) -> list[Setting]:  # fmt: skip
    """Return settings with the frames that are chosen for a question."""
    if not (aware := [setting for setting in settings if setting.question_aware]):
        return settings
    prepared = (source or SelectionSource()).prepared(aware, benchmark.questions, benchmark.questions)
    assert prepared is not None
    chooser, bound = FrameChooser(prepared, str(model.info.device)), []
    for setting in settings:
        try:
            if setting.question_aware:
                setting = choose_frames(chooser, path, setting.for_model(model.info), [question], read)[0].setting
            bound.append(setting)
        except VideoError:
            raise
        except SfllavaError as error:
            log.warning("%s: its cost is unknown: %s", setting.name, error)
    return bound


def _read(pool: DecodePool, path: Path, samples: Sequence[AnySample], size: FrameSize) -> Video:
    return pool.submit(path, samples, size).result()


def _start(model: VideoLM) -> None:
    if model.info.device.type == "cuda":
        torch.cuda.synchronize(model.info.device)
        torch.cuda.reset_peak_memory_stats(model.info.device)


def _done(model: VideoLM) -> float:
    if model.info.device.type == "cuda":
        torch.cuda.synchronize(model.info.device)
    return time.perf_counter()
