"""Videos x settings x questions -> rows on disk; resumable; never drops a question."""

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
    """What `evaluate` did: the run folder, and its scores by setting."""

    path: Path
    scores: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.path}\n{format_scores(self.scores)}"


@dataclass(frozen=True)
class Evaluation:
    """A run in which all that can be checked was checked, and nothing is done yet; `run` does it."""

    runner: Runner
    benchmark: Benchmark
    questions: list[Question]
    settings: list[Setting]
    folder: RunFolder
    options: GenerationOptions

    def run(self, *, retry_failed: bool = False, progress: bool = True) -> Run:
        """Ask what has no row yet, and score. retry_failed: ask again what failed before."""
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
                # a disk that takes no more rows takes no scores: the rows are named
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
    """Ask every question of a benchmark at every setting, and score; `options` are those of `prepare`.

    Called again with the same arguments it goes on where it stopped, however it stopped; with more settings it asks
    the new ones. retry_failed: ask again what failed before. Raises before any compute what `prepare` raises.
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
    """Check all that a run needs before a video is decoded or anything is written; `run` of the result does it.

    Args:
        model: A loaded model, or several on many GPUs (`ray_runner.RayRunner`).
        benchmark: A loaded benchmark, or a name, with root, questions and videos as in `load_benchmark`.
        limit: Ask only so many questions: the first, or with `seed` a random choice.
        prompt: Replaces the templates of the model's family; a setting's own prompt comes before it.
        answer_mode: "generate", or "logits" for the letter of a choice question.
        decoders: Processes that decode videos, for each model.
        decode_seconds: Seconds that one video may take to decode.
        ablation: Its name, for the run's record.

    Raises:
        SfllavaError: A setting does not fit the context, the prompt does not suit a question, or the run folder holds
            another run, cannot be written, or is being written by another process.
    """
    benchmark = find_benchmark(benchmark, questions, videos, root)
    settings = _distinct(settings)
    asked = _choose(benchmark, limit, seed)
    check_generation(answer_mode, max_new_tokens, asked)
    runner = model if isinstance(model, Runner) else LocalRunner(model)
    prompt = prompt or pack_prompt(runner.info.family, asked[0].task)
    options = GenerationOptions(
        {s.name: s.prompt_or(prompt) for s in settings}, max_new_tokens, answer_mode, decoders, decode_seconds
    )
    _check_context(runner.info, settings, options.prompts, asked)
    identity = _identity(benchmark, asked, settings, runner.info, prompt, options)
    facts = _facts(benchmark, runner.info, prompt) | {"limit": limit, "seed": seed, "ablation": ablation}
    folder = RunFolder(out, identity, facts, partial(upgrade, benchmark=benchmark))
    folder.check()
    return Evaluation(runner, benchmark, asked, settings, folder, options)


def _distinct(settings: Setting | Iterable[Setting]) -> list[Setting]:
    """The settings as a list; an error where there are none, or two of one name."""
    found = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in found]
    if not found or len(set(names)) < len(names):
        raise SfllavaError(f"needed settings with names of their own, got {names}")
    return found


def _choose(benchmark: Benchmark, limit: int | None, seed: int | None) -> list[Question]:
    """The questions to ask; an error where there are none, or where a video is a link out of its folder."""
    asked = choose_questions(benchmark.questions, limit, seed)
    if not asked:
        raise SfllavaError(f"{benchmark.name}: no questions to ask")
    for video in dict.fromkeys(question.video for question in asked):
        with contextlib.suppress(BenchmarkError):  # a missing video fails its own questions only
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
    """What makes this run the same as another."""
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
    """What is recorded of this session, and may differ in the next."""
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
    """Raise where a prompt does not suit a question, and where a setting leaves no room for the shortest one."""
    shortest = {p: min(sum(map(len, model.prompt_ids(q, p))) for q in questions) for p in set(prompts.values())}
    for setting in settings:
        model.check_context(setting.token_count(*model.grid), shortest[prompts[setting.name]], setting.name)


def versions() -> dict[str, str]:
    """Of Python and the packages that a result may depend on."""
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
    """What run.json says of a setting. grid: the model's patches (h, w) of a frame, for the budget."""
    facts = {"name": setting.name, "frames": setting.frames, "aggregation": name_of(setting.aggregation)}
    budget = {"budget": setting.token_count(*grid)} if grid else {}
    return facts | budget | ({"prompt": setting.prompt} if setting.prompt else {})
