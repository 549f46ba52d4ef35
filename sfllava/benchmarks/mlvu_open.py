"""MLVU (Zhou et al., 2024), the open-ended tasks of the dev set: describe a scene, summarize a video. Needs a judge."""

from __future__ import annotations

from pathlib import Path

from sfllava.benchmarks.mlvu import SPEC as MLVU
from sfllava.benchmarks.mlvu import read_tasks, task_of
from sfllava.benchmarks.question_files import QuestionsRead, make_question
from sfllava.benchmarks.rows import Row
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.types import Question, Task

# name of the file and folder of a task -> its numbers of questions and videos
_COUNTS = {"8_sub_scene": (201, 201), "9_summary": (217, 216)}


def read_mlvu_open(path: Path, name: str, task: Task) -> QuestionsRead:
    """Read the original JSON files, which are next to those of the multiple-choice tasks."""
    return read_tasks(path, name, list(_COUNTS), ("video", "question", "answer"), _question)


def _question(row: Row, stem: str, key: str, where: str) -> Question:
    return make_question(
        where,
        key=key,
        text=row["question"],
        video=f"{stem}/{row['video']}",
        answer=str(row["answer"]),
        type=task_of(stem),
        task="describe",
    )


SPEC = Spec(
    name="mlvu_open",
    task="describe",
    questions=tuple(place for place in MLVU.questions if place.endswith("json")),
    videos=MLVU.videos,
    question_count=201 + 217,
    video_count=201 + 216,
    counts={f"{stem}.json": counts for stem, counts in _COUNTS.items()},
    read=read_mlvu_open,
    movable_videos=True,
    headline=Headline("G-Avg", ("type",)),
    rubrics={
        "sub_scene": ("ssc_accuracy", "ssc_relevance"),
        "summary": ("summary_completeness", "summary_reliability"),
    },
)
