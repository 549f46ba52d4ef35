"""Answer a benchmark's annotated questions and score the frames for each answer, into a run folder that resumes.

1. `prepare` checks all arguments and the run folder.
2. `Grounding.run` decodes and encodes each video once, answers its questions, and scores the frames for each answer.
3. The rows of a video are written when it is done. A question that fails gets a row with its error.

The folder is a run folder like those of `evaluate`; its rows have the frames' scores and the annotated spans too.
Predicted spans are not in it: they follow from the scores by a rule that may change (`results`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.attribution.grounding.annotations import AnnotatedQuestion, Annotations
from sfllava.attribution.grounding.frame_scores import check_scores
from sfllava.attribution.grounding.ground_video import GroundingOptions, ground_video, make_grounded_row
from sfllava.benchmarks import Benchmark
from sfllava.evaluators import find_evaluator
from sfllava.files import Row
from sfllava.models.base import check_generation
from sfllava.models.memory import free_memory
from sfllava.progress import progress_bar
from sfllava.prompts import Prompt, pack_prompt
from sfllava.runs.evaluate import describe_model, describe_setting, versions
from sfllava.runs.failures import Outcome, Streak, outcome_of_error, reason_of
from sfllava.runs.identity import choose_questions, make_identity
from sfllava.runs.jobs import Job, make_jobs
from sfllava.runs.run_folder import RunFolder
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.video import Video, VideoError
from sfllava.settings import Setting
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM

log = logging.getLogger(__name__)
NOT_ASKED = "the question file has no question with this id"


@dataclass(frozen=True)
class Grounding:
    """A grounding run that has been checked but not started; `run` starts or resumes it.

    Attributes:
        model: a loaded model.
        benchmark: finds the videos.
        asked: the annotated questions.
        options: how answers are made and frames scored.
        identity: what makes two runs the same run, as in run.json.
        folder: the run folder.
    """

    model: VideoLM
    benchmark: Benchmark
    asked: list[AnnotatedQuestion]
    options: GroundingOptions
    identity: Row
    folder: RunFolder

    def run(self, *, retry_failed: bool = False, progress: bool = True) -> Path:
        """Ask the questions that have no row yet.

        Args:
            retry_failed: also ask those questions again that failed in an earlier session.
            progress: show a progress bar.

        Returns:
            The run folder.

        Raises:
            SfllavaError: the run cannot continue; rows written so far are kept.
        """
        setting = self.options.setting
        with self.folder as folder:
            if retry_failed and (dropped := folder.drop_failed()):
                log.info("asking %d failed questions again", dropped)
            done = {(row["key"], row["setting"]) for row in folder.rows()}
            absent = [make_grounded_row(item, setting, error=NOT_ASKED) for item in self.asked if not item.asked]
            folder.append([row for row in absent if (row["key"], setting.name) not in done])
            by_key = {item.question.key: item for item in self.asked if item.asked}
            jobs = list(make_jobs([item.question for item in by_key.values()], [setting], done, self.benchmark))
            total, remaining = len(self.asked), sum(job.size for job in jobs)
            bar = progress_bar(total, "question", total - remaining, progress)
            with bar, contextlib.closing(_ground_jobs(self.model, jobs, by_key, self.options)) as grounded:
                for rows in grounded:
                    folder.append(rows)
                    bar.update(len(rows))
        return self.folder.path


def prepare(
    model: VideoLM,
    benchmark: Benchmark,
    setting: Setting,
    annotations: Annotations,
    out: str | Path,
    *,
    limit: int | None = None,
    seed: int | None = None,
    prompt: Prompt | None = None,
    **options: Any,
) -> Grounding:
    """Check everything that a grounding run needs, before any video is decoded or any file is written.

    Args:
        model: a loaded model.
        benchmark: its questions without spans are not asked.
        setting: how a video becomes visual tokens.
        annotations: the annotated spans.
        out: the run folder.
        limit, seed: ask only `limit` questions: the first ones, or with a seed a random choice. Without a limit, a span
            that belongs to no question of the benchmark counts as a failed question.
        prompt: replaces the prompt of the model's family; a setting's own prompt takes precedence.
        **options: the other fields of GroundingOptions.

    Raises:
        SfllavaError: an argument is wrong, the setting does not fit the context, or the run folder cannot be used.
    """
    benchmark.require_videos()
    matched, without = annotations.match(benchmark.questions)
    asked = matched if limit is None else _choose(matched, limit, seed)
    setting = setting.for_model(model.info)
    chosen = setting.prompt_or(prompt or pack_prompt(model.info.family, asked[0].question.task))
    how = GroundingOptions(setting, chosen, **options)
    _check(model, how, asked)
    identity = _identity(model, benchmark, annotations, how, asked)
    facts = _facts(model, benchmark, annotations) | {"limit": limit, "seed": seed, "without_spans": len(without)}
    folder = RunFolder(out, identity, facts)
    folder.check()
    return Grounding(model, benchmark, asked, how, identity, folder)


def _ground_jobs(
    model: VideoLM, jobs: Sequence[Job], by_key: dict[str, AnnotatedQuestion], options: GroundingOptions
) -> Generator[list[Row], None, None]:
    """Yield the rows of all jobs, while the next videos are decoded."""
    streak = Streak({job.video: i for i, job in enumerate(jobs)})
    decoding: dict[str, Future[Video]] = {}
    size = (model.info.image_size, model.info.image_size)
    with DecodePool(options.decoders, options.decode_seconds) as pool:
        for i, job in enumerate(jobs):
            for later in jobs[i : i + 1 + options.decoders]:
                if later.path is not None and later.video not in decoding:
                    decoding[later.video] = pool.submit(later.path, options.setting.frames, size)
            asked = [by_key[question.key] for _, questions in job.by_setting for question in questions]
            try:
                if job.path is None:
                    raise SfllavaError(job.missing)
                video = _decoded(decoding.pop(job.video), pool, job.path, options.setting.frames, size)
                done = Outcome(ground_video(model, video, asked, options))
            except Exception as error:
                log.warning("%s: failed: %s", job.video, reason_of(error))
                rows = [make_grounded_row(item, options.setting, error=reason_of(error)) for item in asked]
                done = outcome_of_error(job.video, rows, error)
            if not done.answered:
                free_memory()
            yield from streak.add(done)
            if streak.broken:
                raise streak.stop()
        yield from streak.release()


def _decoded(future: Future[Video], pool: DecodePool, path: str, frames: int, size: tuple[int, int]) -> Video:
    """Return a decoded video; if it cannot be read, try once more with PyAV."""
    try:
        return future.result()
    except VideoError as error:
        log.warning("%s: attempt 1 failed: %s", path, reason_of(error))
        return pool.submit(path, frames, size, "pyav").result()


def _choose(matched: Sequence[AnnotatedQuestion], limit: int, seed: int | None) -> list[AnnotatedQuestion]:
    by_key = {item.question.key: item for item in matched if item.asked}
    chosen = choose_questions([item.question for item in by_key.values()], limit, seed)
    return [by_key[question.key] for question in chosen]


def _check(model: VideoLM, options: GroundingOptions, asked: Sequence[AnnotatedQuestion]) -> None:
    questions = [item.question for item in asked if item.asked]
    check_generation("generate", options.max_new_tokens, questions)
    if options.decoders < 1 or options.decode_seconds <= 0:
        raise SfllavaError(
            f"decoders and decode_seconds must be above 0, got {options.decoders} and {options.decode_seconds}"
        )
    if unscored := next((question for question in questions if find_evaluator(question.task) is None), None):
        raise SfllavaError(f"grounding needs questions with an offline score, got task {unscored.task!r}")
    shortest = min(sum(map(len, model.info.prompt_ids(question, options.prompt))) for question in questions)
    model.info.check_context(model.info.prompt_rows(options.setting), shortest, options.setting.name)
    check_scores(options.setting, model.info, options.measures)


def _identity(
    model: VideoLM,
    benchmark: Benchmark,
    annotations: Annotations,
    options: GroundingOptions,
    asked: Sequence[AnnotatedQuestion],
) -> Row:
    identity = make_identity(
        benchmark.name,
        [item.question for item in asked],
        [describe_setting(options.setting, model.info.grid)],
        model=describe_model(model.info),
        prompt=options.prompt.text,
        max_new_tokens=options.max_new_tokens,
        read="generate",
        grounding={"measures": list(options.measures), "spans_sha256": annotations.sha256},
    )
    return json.loads(json.dumps(identity))  # as run.json has it, to compare with that of another run


def _facts(model: VideoLM, benchmark: Benchmark, annotations: Annotations) -> Row:
    return {
        "model": str(model.info.path),
        "device": str(model.info.device),
        "questions_sha256": benchmark.fingerprint,
        "question_files": [str(file) for file in benchmark.files],
        "videos": str(benchmark.videos_dir),
        "spans": str(annotations.path),
        "command": sys.argv,
        "versions": versions(),
    }
