"""Evaluate a model on a benchmark: ask every question at every setting, write the answers, and score them.

A run can be stopped at any moment and resumed. A question that fails is recorded with its error, never dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.aggregators.base import name_of
from sfllava.benchmarks import Benchmark, BenchmarkError, find_benchmark
from sfllava.files import Row, RunError
from sfllava.models.base import check_generation
from sfllava.progress import progress_bar
from sfllava.prompts import Prompt, pack_prompt
from sfllava.runs.identity import choose_questions, make_identity, rope_facts, upgrade
from sfllava.runs.jobs import GenerationOptions, make_jobs
from sfllava.runs.run_folder import RunFolder
from sfllava.runs.runner import LocalRunner, Runner
from sfllava.runs.scoring import format_scores, score_rows
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo, VideoLM


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and its scores by setting."""

    path: Path
    scores: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.path}\n{format_scores(self.scores)}"


@dataclass(frozen=True)
class Evaluation:
    """A run that has been checked and not started yet; `run` starts it."""

    runner: Runner
    benchmark: Benchmark
    questions: list[Question]
    settings: list[Setting]
    folder: RunFolder
    options: GenerationOptions

    def run(self, *, retry_failed: bool = False, progress: bool = True) -> Run:
        """Ask the questions that have no row yet, and score all of them.

        Args:
            retry_failed: Ask questions again that failed before.
            progress: Show a progress bar.
        """
        names = [setting.name for setting in self.settings]
        with self.folder as folder:
            log.info(
                "started: %s, %d questions, settings %s", self.benchmark.name, len(self.questions), ", ".join(names)
            )
            if retry_failed and (dropped := folder.drop_failed()):
                log.info("asking %d failed questions again", dropped)
            done = {(row["key"], row["setting"]) for row in folder.rows()}
            jobs = list(make_jobs(self.questions, self.settings, done, self.benchmark))
            total = len(done) + sum(job.size for job in jobs)
            try:
                bar = progress_bar(total, "question", len(done), progress)
                with bar, contextlib.closing(self.runner.run(self.options, jobs)) as answered:
                    for rows in answered:
                        folder.append(rows)
                        bar.update(len(rows))
            except BaseException:
                # a disk that is full for rows is full for scores too: report the first error
                with contextlib.suppress(RunError):
                    _conclude(folder, self.questions, names)
                raise
            scores = _conclude(folder, self.questions, names)
        return Run(folder.path, scores)


def evaluate(
    model: VideoLM | Runner,
    benchmark: Benchmark | str,
    settings: Setting | Iterable[Setting],
    out: str | Path,
    *,
    retry_failed: bool = False,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Ask every question of a benchmark at every setting, and score the answers.

    The same call again resumes the run; with more settings, it asks the new ones.

    Args:
        model, benchmark, settings, out, options: As `prepare` takes them.
        retry_failed: Ask questions again that failed before.
        progress: Show a progress bar.

    Returns:
        The run folder and the scores.

    Raises:
        SfllavaError: As `prepare` raises it, before any video is decoded; or the run cannot go on.
    """
    return prepare(model, benchmark, settings, out, **options).run(retry_failed=retry_failed, progress=progress)


def prepare(
    model: VideoLM | Runner,
    benchmark: Benchmark | str,
    settings: Setting | Iterable[Setting],
    out: str | Path,
    *,
    root: str | Path | None = None,
    questions: str | Path | None = None,
    videos: str | Path | None = None,
    limit: int | None = None,
    seed: int | None = None,
    prompt: Prompt | None = None,
    max_new_tokens: int = 128,
    answer_mode: str = "generate",
    decoders: int = 2,
    decode_seconds: float = 120.0,
    ablation: str | None = None,
) -> Evaluation:
    """Check everything that a run needs, before any video is decoded or any file written.

    Args:
        model: A loaded model, or a runner such as `ray_runner.RayRunner` for many GPUs.
        benchmark: A loaded benchmark, or a name; then root, questions and videos are those of `load_benchmark`.
        settings: One or several, with different names.
        out: The run folder.
        limit, seed: Ask this many questions: the first ones, or with a seed a random choice.
        prompt: Replaces the prompt of the model's family; a setting's own prompt takes precedence.
        max_new_tokens, answer_mode, decoders, decode_seconds: As in `jobs.GenerationOptions`.
        ablation: Its name, for the run's record.

    Raises:
        SfllavaError: An argument is wrong, a setting does not fit the context, or the run folder cannot be used.
    """
    benchmark, settings = find_benchmark(benchmark, questions, videos, root), _list_settings(settings)
    asked = _choose(benchmark, limit, seed)
    check_generation(answer_mode, max_new_tokens, asked)
    _check_decoding(decoders, decode_seconds)
    runner = model if isinstance(model, Runner) else LocalRunner(model)
    prompt = prompt or pack_prompt(runner.info.family, asked[0].task)
    prompts = {setting.name: setting.prompt_or(prompt) for setting in settings}
    _check_context(runner.info, settings, prompts, asked)
    options = GenerationOptions(prompts, max_new_tokens, answer_mode, decoders, decode_seconds)
    identity = _identity(benchmark, asked, settings, runner.info, prompt, options)
    facts = _facts(benchmark, runner.info, prompt) | {"limit": limit, "seed": seed, "ablation": ablation}
    folder = RunFolder(out, identity, facts, partial(upgrade, benchmark=benchmark))
    folder.check()
    return Evaluation(runner, benchmark, asked, settings, folder, options)


def _list_settings(settings: Setting | Iterable[Setting]) -> list[Setting]:
    found = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in found]
    if not found or len(set(names)) < len(names):
        raise SfllavaError(f"needed settings with names of their own, got {names}")
    return found


def _check_decoding(decoders: int, seconds: float) -> None:
    if decoders < 1 or seconds <= 0:
        raise SfllavaError(f"decoders and decode_seconds must be above 0, got {decoders} and {seconds}")


def _choose(benchmark: Benchmark, limit: int | None, seed: int | None) -> list[Question]:
    """Return the questions to ask; an error if there are none, or if a video is a link out of its folder."""
    asked = choose_questions(benchmark.questions, limit, seed)
    if not asked:
        raise SfllavaError(f"{benchmark.name}: no questions to ask")
    for video in dict.fromkeys(question.video for question in asked):
        with contextlib.suppress(BenchmarkError):  # a missing video fails only its own questions, later
            benchmark.find_video(video)
    return asked


def _identity(
    benchmark: Benchmark,
    asked: Sequence[Question],
    settings: Sequence[Setting],
    model: ModelInfo,
    prompt: Prompt,
    options: GenerationOptions,
) -> Row:
    """Return what must be equal for a run to be resumed."""
    return make_identity(
        benchmark.name,
        asked,
        [describe_setting(setting, model.grid) for setting in settings],
        model={
            "sha256_sampled": model.fingerprint,
            "dtype": str(model.dtype),
            "context": model.context,
            "rope": rope_facts(model.rope),
            "shape": dataclasses.asdict(model.shape),
        },
        prompt=prompt.text,
        max_new_tokens=options.max_new_tokens,
        read=options.answer_mode,
    )


def _facts(benchmark: Benchmark, model: ModelInfo, prompt: Prompt) -> Row:
    """Return what is recorded about this session; a later session may differ in it."""
    return {
        "questions_sha256": benchmark.fingerprint,
        "model": str(model.path),
        "layout": model.layout,
        "device": str(model.device),
        "prompt_source": prompt.source,
        "question_files": [str(file) for file in benchmark.files],
        "videos": str(benchmark.videos_dir),
        "command": sys.argv,
        "versions": versions(),
    }


def _check_context(
    model: ModelInfo, settings: Sequence[Setting], prompts: dict[str, Prompt], questions: Sequence[Question]
) -> None:
    """Raise if a prompt does not suit a question, or a setting leaves no room for the shortest question."""
    shortest = {p: min(sum(map(len, model.prompt_ids(q, p))) for q in questions) for p in set(prompts.values())}
    for setting in settings:
        model.check_context(setting.token_count(*model.grid), shortest[prompts[setting.name]], setting.name)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    packages = ("sfllava", "torch", "transformers", "decord2", "av", "pillow", "numpy", "sentencepiece")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _conclude(folder: RunFolder, questions: Sequence[Question], names: Sequence[str]) -> dict[str, Any]:
    scores = score_rows(questions, names, folder.rows())
    folder.write_scores(scores)
    log.info("ended:\n%s", format_scores(scores))
    return scores


def describe_setting(setting: Setting, grid: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the entry of a setting in run.json; with `grid`, the patches (h, w) of a frame, also its visual tokens."""
    facts = {"name": setting.name, "frames": setting.frames, "aggregation": name_of(setting.aggregation)}
    budget = {"budget": setting.token_count(*grid)} if grid else {}
    return facts | budget | ({"prompt": setting.prompt} if setting.prompt else {})
