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
from sfllava.files import RunError
from sfllava.models.base import check_generation
from sfllava.progress import progress_bar
from sfllava.prompts import Prompt, pack_prompt
from sfllava.runs.identity import choose_questions, make_identity, upgrade
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
    how: GenerationOptions

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
                with bar, contextlib.closing(self.runner.run(self.how, jobs)) as answered:
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
    """Check all that a run needs, before any video is decoded and anything is written.

    model: a loaded one, or several on many GPUs (`cluster.Workers`), which give the same rows in another order.
    benchmark: a loaded one, or a name, with root, questions and videos as in `load_benchmark`. limit: the first so
    many questions, or with `seed` a random choice of them. answer_mode: "generate", or "logits" for choice questions.
    decoders: processes that decode, for each model; decode_seconds: what one video may take. ablation: its name, for
    the run's record.
    Raises SfllavaError where a setting's tokens do not fit the context, where the prompt does not suit a question,
    and where the run folder holds another run, cannot be written, or is being written by another process.
    """
    benchmark = find_benchmark(benchmark, questions, videos, root)
    settings = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in settings]
    if not settings or len(set(names)) < len(names):
        raise SfllavaError(f"needed settings with names of their own, got {names}")
    asked = choose_questions(benchmark.questions, limit, seed)
    if not asked:
        raise SfllavaError(f"{benchmark.name}: no questions to ask")
    for video in dict.fromkeys(question.video for question in asked):
        with contextlib.suppress(BenchmarkError):  # one that is missing fails alone; a link out of the folder stops all
            benchmark.find_video(video)
    check_generation(answer_mode, max_new_tokens, asked)
    if decoders < 1 or decode_seconds <= 0:
        raise SfllavaError(f"decoders and decode_seconds must be above 0, got {decoders} and {decode_seconds}")
    runner = model if isinstance(model, Runner) else LocalRunner(model)
    known = runner.info
    prompt = prompt or pack_prompt(known.family, asked[0].task)
    prompts = {s.name: Prompt(s.prompt, s.name) if s.prompt else prompt for s in settings}
    _check_context(known, settings, prompts, asked)
    identity = make_identity(
        benchmark.name,
        asked,
        [describe_setting(s, known.grid) for s in settings],
        model={
            "sha256_sampled": known.fingerprint,
            "dtype": str(known.dtype),
            "context": known.context,
            "rope": known.rope,
            "shape": dataclasses.asdict(known.shape),
        },
        prompt=prompt.text,
        max_new_tokens=max_new_tokens,
        read=answer_mode,
    )
    facts = {
        "questions_sha256": benchmark.fingerprint,
        "limit": limit,
        "seed": seed,
        "model": str(known.path),
        "layout": known.layout,
        "device": str(known.device),
        "prompt_source": prompt.source,
        "question_files": [str(f) for f in benchmark.files],
        "videos": str(benchmark.videos_dir),
        "ablation": ablation,
        "command": sys.argv,
        "versions": versions(),
    }
    folder = RunFolder(out, identity, facts, partial(upgrade, benchmark=benchmark))
    folder.check()
    how = GenerationOptions(prompts, max_new_tokens, answer_mode, decoders, decode_seconds)
    return Evaluation(runner, benchmark, asked, settings, folder, how)


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
