"""What is to be asked of each video, and the rows that come of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfllava.aggregators.base import prefix_key
from sfllava.benchmarks import Benchmark, BenchmarkError
from sfllava.files import Row
from sfllava.prompts import Prompt
from sfllava.runs.failures import reason_of
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

if TYPE_CHECKING:
    pass


log = logging.getLogger(__name__)
SettingQuestions = tuple[Setting, list[Question]]
# Questions up to which videos are answered together: a step of decoding takes hardly longer for 12 than for one
MAX_BATCH_QUESTIONS = 12


@dataclass(frozen=True)
class Job:
    """One video, and what is still to be asked of it at each setting, settings of one front side by side."""

    video: str
    path: str | None
    """Its file; None where there is none, for the reason that `missing` gives"""
    missing: str
    asks: list[SettingQuestions]

    @property
    def frames(self) -> list[int]:
        return sorted({setting.frames for setting, _ in self.asks})

    @property
    def size(self) -> int:
        return sum(len(questions) for _, questions in self.asks)

    @property
    def widest(self) -> int:
        """Questions at the setting that has the most of them"""
        return max(len(questions) for _, questions in self.asks)

    def failed(self, reason: str) -> list[Row]:
        """The rows of a job that cannot be done."""
        return [make_row(q, setting.name, error=reason) for setting, questions in self.asks for q in questions]


@dataclass(frozen=True)
class GenerationOptions:
    """What is the same for all jobs of a run. prompts: by setting; decoders: processes that decode."""

    prompts: dict[str, Prompt]
    max_new_tokens: int
    answer_mode: str
    decoders: int
    decode_seconds: float

    def __post_init__(self) -> None:
        if self.decoders < 1 or self.decode_seconds <= 0:
            raise SfllavaError(
                f"decoders and decode_seconds must be above 0, got {self.decoders} and {self.decode_seconds}"
            )


def group_videos(counts: Iterable[int], most: int) -> Iterator[list[int]]:
    """The videos that are answered together, by number: in order, as many as have `most` questions or fewer together.

    counts: the questions of each video. One that has more than `most` is a group of its own. A run and its plan both
    group by this.
    """
    group: list[int] = []
    size = 0
    for video, count in enumerate(counts):
        if group and size + count > most:
            yield group
            group, size = [], 0
        group.append(video)
        size += count
    if group:
        yield group


def make_jobs(
    questions: Iterable[Question], settings: Sequence[Setting], done: set[tuple[str, str]], benchmark: Benchmark
) -> Iterator[Job]:
    """A job for each video that has questions whose (key, setting) is not done, in the questions' order."""
    by_video: dict[str, list[Question]] = {}
    for question in questions:
        by_video.setdefault(question.video, []).append(question)
    # settings of one front stand side by side, so that its keys and values are still there for the next
    fronts: dict[object, list[Setting]] = {}
    for setting in settings:
        fronts.setdefault((setting.prompt, setting.frames, prefix_key(setting.aggregation)), []).append(setting)
    for video, asked in by_video.items():
        asks = [
            (setting, left)
            for group in fronts.values()
            for setting in group
            if (left := [q for q in asked if (q.key, setting.name) not in done])
        ]
        if asks:
            path, missing = None, ""
            try:
                path = str(benchmark.find_video(video))
            except BenchmarkError as error:
                missing = reason_of(error)
            yield Job(video, path, missing, asks)


def make_row(question: Question, setting: str, error: str | None = None, **result: Any) -> Row:
    """A row of predictions.jsonl: the question, and its result or why it failed."""
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
