"""Jobs: the questions that a run still has to ask about each video, and the rows that answer them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sfllava.aggregators.base import prefix_key
from sfllava.benchmarks import Benchmark, BenchmarkError
from sfllava.files import Row
from sfllava.prompts import Prompt
from sfllava.runs.failures import reason_of
from sfllava.settings import Setting
from sfllava.types import Question

log = logging.getLogger(__name__)
SettingQuestions = tuple[Setting, list[Question]]
# The largest number of questions in a group of several videos: a decode step takes hardly longer for 12 than for 1
MAX_BATCH_QUESTIONS = 12


@dataclass(frozen=True)
class Job:
    """One video, and the questions that remain to be asked about it at each setting.

    Attributes:
        video: The video's name in the benchmark.
        path: Its file; None if there is none.
        missing: Why there is no file; empty if there is one.
        by_setting: Each setting with its remaining questions; settings with a common prefix follow one another.
    """

    video: str
    path: str | None
    missing: str
    by_setting: list[SettingQuestions]

    @property
    def frames(self) -> list[int]:
        """The different numbers of frames that the settings sample, in ascending order."""
        return sorted({setting.frames for setting, _ in self.by_setting})

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
        prompts: The prompt of each setting, by the setting's name.
        max_new_tokens: The largest number of new tokens of an answer.
        answer_mode: "generate", or "logits" for the most probable letter after one forward; see `VideoLM.answer`.
        decoders: Number of processes that decode videos, for each model.
        decode_seconds: The longest time in seconds that one video may take to decode.
    """

    prompts: dict[str, Prompt]
    max_new_tokens: int
    answer_mode: str
    decoders: int
    decode_seconds: float


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
        prefix = setting.prompt, setting.frames, prefix_key(setting.aggregation)
        groups.setdefault(prefix, []).append(setting)
    return [setting for group in groups.values() for setting in group]


def make_jobs(
    questions: Iterable[Question], settings: Sequence[Setting], done: set[tuple[str, str]], benchmark: Benchmark
) -> Iterator[Job]:
    """Make the remaining jobs of a run, in the order of the questions.

    Args:
        questions: All questions of the run.
        settings: All settings of the run.
        done: The (question key, setting name) of each row that the run already has.
        benchmark: Finds the video files.

    Yields:
        One job for each video with remaining questions.
    """
    by_video: dict[str, list[Question]] = {}
    for question in questions:
        by_video.setdefault(question.video, []).append(question)
    ordered = order_by_prefix(settings)
    for video, asked in by_video.items():
        by_setting = [
            (setting, remaining)
            for setting in ordered
            if (remaining := [q for q in asked if (q.key, setting.name) not in done])
        ]
        if by_setting:
            path, missing = None, ""
            try:
                path = str(benchmark.find_video(video))
            except BenchmarkError as error:
                missing = reason_of(error)
            yield Job(video, path, missing, by_setting)


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
        "prediction": None,
        "token_ids": [],
        "visual_tokens": None,
        "seconds": {},
        "error": error,
        **result,
    }
