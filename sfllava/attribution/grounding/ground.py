"""Answer the annotated questions of a benchmark and score the frames for each answer, in a resumable run folder.

1. `prepare` checks all arguments and the run folder.
2. `Grounding.run` decodes and encodes each video once, answers its questions, and scores the frames for each answer.
3. The rows of a video are written when the video is finished. A failed question gets a row with its error, and an
   answer whose frames cannot be scored a row with `score_errors`.

The run folder is like one of `evaluate`, but its rows also have the frame scores and the annotated spans. It does not
contain predicted spans: `results` computes them from the scores, with a rule that can still be changed.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfllava.attribution.grounding.annotations import AnnotatedQuestion, Annotations
from sfllava.attribution.grounding.frame_scores import MEASURES, check_scores
from sfllava.attribution.grounding.ground_video import GroundingOptions, ground_video, make_grounded_row
from sfllava.benchmarks import Benchmark
from sfllava.display.progress import progress_bar
from sfllava.evaluators import find_evaluator
from sfllava.files import Row
from sfllava.models.base import check_generation
from sfllava.models.memory import free_memory
from sfllava.prompts import Prompt
from sfllava.runs.failures import Streak, outcome_of_error, reason_of
from sfllava.runs.identity import choose_questions
from sfllava.runs.jobs import GenerationOptions, Job, make_jobs
from sfllava.runs.run_folder import RunFolder
from sfllava.runs.run_json import choose_prompts, prompts_by_setting, run_identity, session_facts
from sfllava.runs.worker import VideoWorker
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

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
        options: how answers are generated and frames scored.
        identity: the facts that two sessions of one run must share, as in run.json.
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
            retry_failed: also ask the questions again that an earlier session did not answer, or score the frames for.
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
    measures: Sequence[str] = MEASURES,
    max_new_tokens: int = 128,
    decoders: int = 2,
    decode_seconds: float = 120.0,
) -> Grounding:
    """Check everything that a grounding run needs, before any video is decoded or any file is written.

    Args:
        model: a loaded model.
        benchmark: its questions without spans are not asked.
        setting: how a video becomes visual tokens.
        annotations: the annotated spans.
        out: the run folder.
        limit, seed: ask only `limit` questions: the first ones, or a random selection if there is a seed. Without a
            limit, a span without a question in the benchmark counts as a failed question.
        prompt: replaces the prompt of the model's family; a setting's own prompt takes precedence.
        measures: how frames are scored: one or more of `frame_scores.MEASURES`.
        max_new_tokens, decoders, decode_seconds: see `jobs.GenerationOptions`.

    Raises:
        SfllavaError: an argument is wrong, the setting does not fit the context, or the run folder cannot be used.
    """
    benchmark.require_videos()
    matched, without = annotations.match(benchmark.questions)
    asked = matched if limit is None else _choose(matched, limit, seed)
    questions = [item.question for item in asked if item.asked]
    setting = setting.for_model(model.info)
    prompts = choose_prompts(model.info.family, benchmark, questions, prompt, None)
    by_setting = prompts_by_setting([setting], prompts)
    generation = GenerationOptions(by_setting, max_new_tokens, "generate", decoders, decode_seconds)
    options = GroundingOptions(setting, generation.prompt(setting.name, questions[0]), generation, tuple(measures))
    _check(model, options, questions)
    every = [item.question for item in asked]
    identity = run_identity(benchmark, every, [setting], model.info, prompts, generation)
    identity |= {"grounding": {"measures": list(measures), "spans_sha256": annotations.sha256}}
    more = {"spans": str(annotations.path), "limit": limit, "seed": seed, "without_spans": len(without)}
    identity = json.loads(json.dumps(identity))  # as JSON stores it, to compare it with another run.json
    folder = RunFolder(out, identity, session_facts(benchmark, model.info, prompts, **more))
    folder.check()
    return Grounding(model, benchmark, asked, options, identity, folder)


def _ground_jobs(
    model: VideoLM, jobs: Sequence[Job], by_key: dict[str, AnnotatedQuestion], options: GroundingOptions
) -> Generator[list[Row], None, None]:
    """Yield the rows of each job while the next videos are decoded."""
    streak = Streak({job.video: i for i, job in enumerate(jobs)})
    with VideoWorker(model, options.generation) as worker:
        for i, job in enumerate(jobs):
            for later in jobs[i : i + 1 + options.generation.decoders]:
                worker.prefetch(later)
            asked = [by_key[question.key] for _, questions in job.by_setting for question in questions]
            try:
                if job.path is None:
                    raise SfllavaError(job.missing)
                done = ground_video(model, worker.video(job), asked, options)
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


def _choose(matched: Sequence[AnnotatedQuestion], limit: int, seed: int | None) -> list[AnnotatedQuestion]:
    by_key = {item.question.key: item for item in matched if item.asked}
    chosen = choose_questions([item.question for item in by_key.values()], limit, seed)
    return [by_key[question.key] for question in chosen]


def _check(model: VideoLM, options: GroundingOptions, questions: Sequence[Question]) -> None:
    generation, setting = options.generation, options.setting
    if setting.question_aware:
        raise SfllavaError(
            f"{setting.name}: spans are predicted from frames at equal distances: use selection uniform here, and "
            "`sfllava evaluate --selection` for answers with chosen frames"
        )
    check_generation("generate", generation.max_new_tokens, questions)
    if generation.decoders < 1 or generation.decode_seconds <= 0:
        raise SfllavaError(
            f"decoders and decode_seconds must be above 0, got {generation.decoders} and {generation.decode_seconds}"
        )
    tasks = {question.task for question in questions}
    if len(tasks) > 1 or find_evaluator(questions[0].task) is None:
        raise SfllavaError(
            f"grounding needs questions of a single task that can be scored without a judge, got {', '.join(tasks)}"
        )
    shortest = min(sum(map(len, model.info.prompt_ids(question, options.prompt))) for question in questions)
    model.info.check_context(model.info.prompt_rows(setting), shortest, setting.name)
    check_scores(setting, model.info, options.measures)
