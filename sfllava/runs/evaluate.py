"""Evaluate a model on a benchmark: ask every question at every setting, write the answers, and score them.

1. `prepare` checks all arguments and the run folder, and writes nothing.
2. `Evaluation.run` makes one job per video, of the questions that have no row yet.
3. A runner answers the jobs; their rows are written as they arrive.
4. All rows are scored, those of earlier sessions included.

A session is one call that starts or resumes a run. A run can be stopped at any moment and resumed. A question that
fails gets a row with its error and is never dropped.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.benchmarks import Benchmark, BenchmarkError, find_benchmark
from sfllava.display.progress import progress_bar
from sfllava.display.text import WIDEST
from sfllava.files import Row, RunError
from sfllava.models.base import check_generation
from sfllava.prompts import Prompt
from sfllava.runs.identity import choose_questions, upgrade
from sfllava.runs.jobs import GenerationOptions, make_jobs
from sfllava.runs.run_folder import RunFolder
from sfllava.runs.run_json import choose_prompts, prompts_by_setting, run_identity, session_facts
from sfllava.runs.runner import LocalRunner, Runner
from sfllava.runs.score_table import Intervals, format_scores
from sfllava.runs.scoring import score_rows
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.sampling import RULES
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError, Task

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo, VideoLM


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: Its folder.
        scores: The scores of each setting, by its name.
        seconds: The mean seconds per question of each setting, to encode the frames and to answer.
    """

    path: Path
    scores: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text()

    def text(self, intervals: Intervals | None = None) -> str:
        """Return the folder, and the scores as a table; with intervals from `analysis.score_intervals.intervals`."""
        return f"{self.path}\n{format_scores(self.scores, intervals, self.seconds)}"

    def __repr__(self) -> str:
        counts = [(s["answered"], s["questions"]) for s in self.scores.values()]
        answered, questions = (sum(each) for each in zip(*counts)) if counts else (0, 0)
        settings = f"{len(self.scores)} setting{'s' * (len(self.scores) != 1)}"
        return f"Run({str(self.path)!r}, {settings}, {answered} of {questions} questions answered)"

    def _repr_html_(self) -> str:
        # intervals come from the analysis, a later part of the package: found by name, and only to be shown
        return importlib.import_module("sfllava.reports.run_card").run_card(self.path, self.scores)


@dataclass(frozen=True)
class Evaluation:
    """A run that has been checked but not started; `run` starts or resumes it."""

    runner: Runner
    benchmark: Benchmark
    questions: list[Question]
    settings: list[Setting]
    folder: RunFolder
    options: GenerationOptions

    def __repr__(self) -> str:
        asked = f"{len(self.questions)} questions, {len(self.settings)} settings"
        return f"Evaluation({self.benchmark.name!r}, {asked}, {str(self.folder.path)!r})"

    def run(self, *, retry_failed: bool = False, progress: bool = True) -> Run:
        """Ask the questions that have no row yet, and score all questions.

        Args:
            retry_failed: Also ask those questions again that failed in an earlier session.
            progress: Show a progress bar.

        Returns:
            The run folder and the scores.

        Raises:
            SfllavaError: The run cannot continue. Rows written so far are kept.
        """
        names = [setting.name for setting in self.settings]
        with self.folder as folder:
            log.info(
                "started: %s, %d questions, settings %s", self.benchmark.name, len(self.questions), ", ".join(names)
            )
            if retry_failed and (dropped := folder.drop_failed()):
                log.info("asking %d failed questions again", dropped)
            done = {(row["key"], row["setting"]) for row in folder.rows()}
            jobs = list(make_jobs(self.questions, self.settings, done, self.benchmark, self.options.subtitles))
            total = len(done) + sum(job.size for job in jobs)
            try:
                bar = progress_bar(total, "question", len(done), progress)
                with bar, contextlib.closing(self.runner.run(self.options, jobs)) as answered:
                    for rows in answered:
                        folder.append(rows)
                        bar.update(len(rows))
            except BaseException:
                # score what there is; if that fails too, as on a full disk, report the first error
                with contextlib.suppress(RunError):
                    _write_scores(folder, self.questions, names, self.benchmark)
                raise
            scores, seconds = _write_scores(folder, self.questions, names, self.benchmark)
        return Run(folder.path, scores, seconds)


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

    To resume a run, repeat the call. Settings may be added: only questions without a row are asked.

    Args:
        model, benchmark, settings, out, **options: The arguments of `prepare`.
        retry_failed: Also ask those questions again that failed in an earlier session.
        progress: Show a progress bar.

    Returns:
        The run folder and the scores.

    Raises:
        SfllavaError: `prepare` found something wrong, before any video was decoded; or the run cannot continue.
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
    protocol: str | None = None,
    subtitles: bool = False,
    max_new_tokens: int = 128,
    answer_mode: str = "generate",
    decoders: int = 2,
    decode_seconds: float = 120.0,
    ablation: str | None = None,
    selection: SelectionSource | None = None,
) -> Evaluation:
    """Check everything that a run needs, before any video is decoded or any file is written.

    Args:
        model: A loaded model, or a runner such as `ray_runner.RayRunner` for many GPUs.
        benchmark, settings: A loaded benchmark, or the name of one; and one or more settings with different names.
        out: The run folder.
        root, questions, videos: Where the files of a benchmark given by name are; see `load_benchmark`.
        limit, seed: Ask only `limit` questions: the first ones, or with a seed a random choice.
        prompt, protocol: Your own prompt, or the tool whose prompts are used (`evaluators.protocols`).
        subtitles, max_new_tokens, answer_mode, decoders, decode_seconds: See `jobs.GenerationOptions`.
        ablation, selection: The ablation that the run belongs to; what frames are chosen with for each question.

    Raises:
        SfllavaError: An argument is wrong, a setting does not fit the context, or the run folder cannot be used.
    """
    benchmark = find_benchmark(benchmark, questions, videos, root)
    asked = _choose_questions(benchmark, limit, seed)
    runner = model if isinstance(model, Runner) else LocalRunner(model)
    settings = [setting.for_model(runner.info) for setting in _list_settings(settings)]
    defaults = choose_prompts(runner.info.family, benchmark, asked, prompt, protocol, subtitles)
    prompts = prompts_by_setting(settings, defaults)
    source = (selection or SelectionSource()).prepared(settings, benchmark.questions, asked)
    options = GenerationOptions(prompts, max_new_tokens, answer_mode, decoders, decode_seconds, subtitles, source)
    _check(runner.info, benchmark, asked, settings, options)
    identity = run_identity(benchmark, asked, settings, runner.info, defaults, options)
    more = {"limit": limit, "seed": seed, "ablation": ablation, "protocol": protocol}
    facts = session_facts(benchmark, runner.info, defaults, **more, **(source.facts() if source else {}))
    (folder := RunFolder(out, identity, facts, partial(upgrade, benchmark=benchmark))).check()
    return Evaluation(runner, benchmark, asked, settings, folder, options)


def _list_settings(settings: Setting | Iterable[Setting]) -> list[Setting]:
    found = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in found]
    if not found or len(set(names)) < len(names):
        raise SfllavaError(f"needed one or more settings with different names, got {names}")
    return found


def _check(
    model: ModelInfo,
    benchmark: Benchmark,
    asked: Sequence[Question],
    settings: Sequence[Setting],
    options: GenerationOptions,
) -> None:
    """Raise if an option is invalid, a prompt does not fit a question, or a setting leaves no room for a question."""
    check_generation(options.answer_mode, options.max_new_tokens, asked)
    if (decoders := options.decoders) < 1 or options.decode_seconds <= 0:
        raise SfllavaError(f"decoders and decode_seconds must be above 0, got {decoders} and {options.decode_seconds}")
    if options.subtitles:
        benchmark.require_subtitles()
    _check_context(model, settings, options, asked)
    if warning := model.describe_unknown_range({s.name: s.token_count(*model.grid) for s in settings}):
        log.warning("%s", warning)


def _choose_questions(benchmark: Benchmark, limit: int | None, seed: int | None) -> list[Question]:
    """Return the questions to ask; raise if there are none, or if a video is a link that leads out of its folder."""
    asked = choose_questions(benchmark.questions, limit, seed)
    if not asked:
        raise SfllavaError(f"{benchmark.name}: no questions to ask")
    for video in dict.fromkeys(question.video for question in asked):
        with contextlib.suppress(BenchmarkError):  # a missing video does not stop a run: its questions fail
            benchmark.find_video(video)
    return asked


def _check_context(
    model: ModelInfo, settings: Sequence[Setting], options: GenerationOptions, questions: Sequence[Question]
) -> None:
    """Raise if a prompt does not suit a question, or a setting leaves no room for the shortest question."""
    shortest: dict[frozenset[tuple[Task, Prompt]], int] = {}
    for setting in settings:
        prompts = options.prompts[setting.name]
        key = frozenset(prompts.items())
        if key not in shortest:
            shortest[key] = min(sum(map(len, model.prompt_ids(q, prompts[q.task]))) for q in questions)
        # a video may be so short that an fps rule takes one frame of it; longer ones are checked when they are decoded
        frames = None if setting.frame_rule in RULES else 1
        model.check_context(model.prompt_rows(setting, frames), shortest[key], setting.name)


def _write_scores(
    folder: RunFolder, questions: Sequence[Question], names: Sequence[str], benchmark: Benchmark
) -> tuple[dict[str, Any], dict[str, float]]:
    """Score all rows of the run so far; return the scores, and the mean seconds per answer of each setting."""
    seconds: defaultdict[str, float] = defaultdict(float)
    answers = Counter[str]()

    def timed() -> Iterator[Row]:
        for row in folder.rows():
            if row["seconds"]:
                seconds[row["setting"]] += sum(row["seconds"].values())
                answers[row["setting"]] += 1
            yield row

    scores = score_rows(questions, names, timed(), benchmark)
    folder.write_scores(scores)
    means = {name: seconds[name] / count for name, count in answers.items()}
    log.info("ended:\n%s", format_scores(scores, seconds=means, width=WIDEST))
    return scores, means
