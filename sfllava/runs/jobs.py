"""Jobs: the questions that a run still has to ask about each video or clip, and the rows that answer them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfllava.aggregators.base import prefix_key
from sfllava.benchmarks import Benchmark, BenchmarkError
from sfllava.files import Row
from sfllava.models.engines.options import PACKED
from sfllava.prompts import Prompt
from sfllava.runs.failures import reason_of
from sfllava.runs.identity import job_name, question_facts
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.sampling import AnySample
from sfllava.settings import Setting
from sfllava.types import Clip, Question, Task

log = logging.getLogger(__name__)
SettingQuestions = tuple[Setting, list[Question]]
# The largest number of questions in a group of several videos: a decode step takes hardly longer for 12 than for 1
MAX_BATCH_QUESTIONS = PACKED.batch_questions


@dataclass(frozen=True)
class Job:
    """One video or clip, and the questions that remain to be asked about it at each setting.

    Attributes:
        video: The video's name in the benchmark, followed by the clip if the questions are about a part of it.
        path: The video file; None if there is none.
        missing: Why there is no video file; empty if there is one.
        by_setting: Each setting with its remaining questions; settings with a common prefix follow one another.
        clip: The part of the video that the questions are about; None for all of it.
        subtitles: The path of each file of subtitles that a question names, or None and why there is none; empty if the
            run uses no subtitles.
    """

    video: str
    path: str | None
    missing: str
    by_setting: list[SettingQuestions]
    clip: Clip | None = None
    subtitles: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)
    selected: Mapping[tuple[str, ...], Row] = field(default_factory=dict, hash=False)
    """What rows record of the frames chosen for a question, by `selected_key`."""

    @property
    def samples(self) -> list[AnySample]:
        """The different samples of frames that the settings need, in a fixed order."""
        found = {setting.sample for setting, _ in self.by_setting}
        return sorted(found, key=lambda sample: (sample.frames, str(sample)))

    @property
    def question_aware(self) -> bool:
        """Whether frames remain to be chosen for each question."""
        return any(setting.question_aware and not setting.chosen for setting, _ in self.by_setting)

    @property
    def size(self) -> int:
        """The number of rows that the job produces."""
        return sum(len(questions) for _, questions in self.by_setting)

    @property
    def max_questions(self) -> int:
        """The number of questions at the setting with the most questions."""
        return max(len(questions) for _, questions in self.by_setting)

    def failed_rows(self, reason: str) -> list[Row]:
        """Return a row with this error for every question at every setting."""
        return [make_row(q, setting.name, error=reason) for setting, questions in self.by_setting for q in questions]


@dataclass(frozen=True)
class GenerationOptions:
    """How the questions of a run are answered; the same for all its jobs.

    Attributes:
        prompts: The prompts of each setting, by the setting's name and the question's task.
        max_new_tokens: The largest number of new tokens of an answer.
        answer_mode: "generate", or "logits" for the most probable letter after one forward; see `VideoLM.answer`.
        decoders: Number of processes that decode videos, for each model.
        decode_seconds: The longest time in seconds that one video may take to decode.
        subtitles: Whether prompts have the subtitles that are visible at the sampled frames.
        selection: What frames are chosen with for each question; None if no setting needs it.
    """

    prompts: dict[str, dict[Task, Prompt]]
    max_new_tokens: int
    answer_mode: str
    decoders: int
    decode_seconds: float
    subtitles: bool = False
    selection: SelectionSource | None = None

    def prompt(self, setting: str, question: Question) -> Prompt:
        """Return the prompt of a question at the setting with this name."""
        return self.prompts[setting][question.task]


def group_videos(counts: Iterable[int], max_questions: int) -> Iterator[list[int]]:
    """Group consecutive videos that are answered together; runs and the planner use the same groups.

    Args:
        counts: The number of questions about each video.
        max_questions: The largest number of questions in a group. A video with more is a group of its own.

    Yields:
        The indices of the videos in a group, group by group.
    """
    group: list[int] = []
    size = 0
    for video, count in enumerate(counts):
        if group and size + count > max_questions:
            yield group
            group, size = [], 0
        group.append(video)
        size += count
    if group:
        yield group


def order_by_prefix(settings: Iterable[Setting]) -> list[Setting]:
    """Order settings as a run does: those with a common prefix follow one another, so that its KV cache is reused."""
    groups: dict[object, list[Setting]] = {}
    for setting in settings:
        prefix = (
            setting.prompt,
            setting.sample,
            setting.selection,
            setting.selection_for,
            prefix_key(setting.aggregation),
        )
        groups.setdefault(prefix, []).append(setting)
    return [setting for group in groups.values() for setting in group]


def make_jobs(
    questions: Iterable[Question],
    settings: Sequence[Setting],
    done: set[tuple[str, str]],
    benchmark: Benchmark,
    subtitles: bool = False,
) -> Iterator[Job]:
    """Make the remaining jobs of a run, in the order of the questions.

    Args:
        questions: All questions of the run.
        settings: All settings of the run.
        done: The (question key, setting name) of each row that the run already has.
        benchmark: Finds the video files.
        subtitles: Whether the run uses subtitles.

    Yields:
        One job for each video, or clip of a video, with remaining questions.
    """
    by_clip: dict[tuple[str, Clip | None], list[Question]] = {}
    for question in questions:
        by_clip.setdefault((question.video, question.clip), []).append(question)
    ordered = order_by_prefix(settings)
    for (video, clip), asked in by_clip.items():
        by_setting = [
            (setting, remaining)
            for setting in ordered
            if (remaining := [q for q in asked if (q.key, setting.name) not in done])
        ]
        if by_setting:
            path, missing = _find(benchmark.find_video, video)
            files = {question.subtitle_file for question in asked if question.subtitle_file} if subtitles else set()
            texts = {name: _find(benchmark.find_subtitles, name) for name in sorted(files)}
            yield Job(job_name(video, clip), path, missing, by_setting, clip, texts)


def _find(find: Callable[[str], Path], name: str) -> tuple[str | None, str]:
    """Return the path of a file, or why there is none."""
    try:
        return str(find(name)), ""
    except BenchmarkError as error:
        return None, reason_of(error)


def selected_key(setting: str, question: Question) -> tuple[str, ...]:
    """Return the key by which a job has the frames chosen for a question at the setting with this name."""
    return setting, question.key, question.text, *question.options


def make_row(question: Question, setting: str, error: str | None = None, **result: Any) -> Row:
    """Make a row of predictions.jsonl: the question with its `result`, or with the error that made it fail."""
    return {
        "key": question.key,
        "setting": setting,
        "video": question.video,
        "id": question.id,
        "type": question.type,
        "question": question.text,
        "answer": question.answer,
        "options": list(question.options),
        **question_facts(question),
        "prediction": None,
        "token_ids": [],
        "visual_tokens": None,
        "seconds": {},
        "error": error,
        **result,
    }
