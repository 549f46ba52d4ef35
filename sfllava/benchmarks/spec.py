"""What is fixed about a benchmark; each benchmark's module exposes one as `SPEC`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sfllava.benchmarks.question_files import QuestionsRead, read_questions
from sfllava.benchmarks.remote_files import Downloads
from sfllava.types import Question, Task


@dataclass(frozen=True)
class Headline:
    """A benchmark's official number: the mean of the accuracies of its groups.

    Where a judge gives scores, a group's value is the sum of the mean scores by its rubrics.

    Attributes:
        name: what papers call it, such as "M-Avg".
        groups: the columns that define a group: "type", or a name in `Question.groups`; with scores "type" or "rubric".
    """

    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Spec:
    """What is fixed about a benchmark.

    Args:
        name: its name, that of its module.
        task: how its questions are asked and scored.
        questions: where its question file or folder may be below a root; the first that exists counts.
        videos: where its folder of videos may be below a root; the first that exists counts.
        question_count: the number of questions as published.
        video_count: the number of videos as published.
        read: (file or folder, name, task) -> the questions, the files that they were read from, and flaws of the
            files, if there are any.
        types: what the codes for types of question in its file mean.
        subtitles: where its folder of subtitles may be below a root; the first that exists counts.
        headline: the number that papers report, where it is not the accuracy over all questions.
        rubrics: the rubrics by which a judge judges its predictions, by the type of question in its file; those of ""
            are for all types. Empty for those that need no judge, and for open questions, whose rubric is "open".
        downloads: where its files can be downloaded, None if nowhere.
        counts: the numbers of questions and videos in a published question file, by its name, where the benchmark has
            several of them.
        movable_videos: the folders in its videos' names are those of one published layout; a video may be in a folder
            that no name has, if none of the folders has it.
    """

    name: str
    task: Task
    questions: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    question_count: int | None = None
    video_count: int | None = None
    read: Callable[[Path, str, Task], tuple[list[Question], list[Path]] | QuestionsRead] = read_questions
    types: Mapping[str, str] = field(default_factory=dict)
    subtitles: tuple[str, ...] = ()
    headline: Headline | None = None
    rubrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    downloads: Downloads | None = None
    counts: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    movable_videos: bool = False
