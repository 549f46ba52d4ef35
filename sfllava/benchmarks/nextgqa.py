"""NExT-GQA (Xiao et al., 2024): questions of NExT-QA that can be answered from a moment of the video.

The test set by default; pass val.csv as question file for the validation set.
"""

from __future__ import annotations

from pathlib import Path

from sfllava.benchmarks.base import Spec
from sfllava.benchmarks.choices import find_text
from sfllava.benchmarks.nextqa import SPEC as NEXTQA
from sfllava.benchmarks.question_files import choice_question, read_table
from sfllava.benchmarks.rows import Row
from sfllava.types import Question, Task

_OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def read_nextgqa(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of test.csv or val.csv."""
    return read_table(path, name, ("video_id", "qid", "type", "question", "answer", *_OPTIONS), _question)


def _question(row: Row, key: str, where: str) -> Question:
    options, answer = [str(row[column]) for column in _OPTIONS], str(row["answer"])
    return choice_question(
        where,
        options,
        find_text(answer, options),
        answer,
        key=key,
        text=row["question"],
        video=row["video_id"],
        id=str(row["qid"]),
        type=str(row["type"]),
    )


SPEC = Spec(
    name="nextgqa",
    task="choice",
    questions=("nextgqa/test.csv", "NExT-GQA/datasets/nextgqa/test.csv"),
    videos=("nextgqa/videos", "NExTVideo", "NExT-GQA/NExTVideo", *NEXTQA.videos),
    question_count=5_553,
    video_count=990,
    counts={"test.csv": (5_553, 990), "val.csv": (3_358, 567)},
    read=read_nextgqa,
    types={**NEXTQA.types, "TP": "before and after"},
)
