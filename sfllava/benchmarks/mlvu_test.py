"""MLVU (Zhou et al., 2024), the multiple-choice questions of the test set, with six options each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sfllava.benchmarks.choices import find_text, text_list
from sfllava.benchmarks.mlvu import flat_question
from sfllava.benchmarks.question_files import choice_question, read_table
from sfllava.benchmarks.rows import Row
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.types import Question, Task

_COLUMNS = ("video", "question", "candidates", "answer", "question_type", "question_id")
_FLAT_COLUMNS = ("video_name", "question", "candidates", "answer", "task_type", "question_id")


def read_mlvu_test(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read test_mcq_gt.json, which has the answers, or the parquet file of lmms-eval."""
    if path.suffix.lower() == ".json":
        return read_table(path, name, _COLUMNS, _question, "question_id")
    return read_table(path, name, _FLAT_COLUMNS, partial(flat_question, {}), "question_id")


def _question(row: Row, key: str, where: str) -> Question:
    options, answer = text_list(row["candidates"], "candidates", where), str(row["answer"])
    return choice_question(
        where,
        options,
        find_text(answer, options),
        answer,
        key=key,
        text=row["question"],
        video=row["video"],
        id=str(row["question_id"]),
        type=str(row["question_type"]),
    )


SPEC = Spec(
    name="mlvu_test",
    task="choice",
    questions=(
        "MLVU_Test/test-ground-truth/test_mcq_gt.json",
        "mlvu_test/test-ground-truth/test_mcq_gt.json",
        "mlvu/mlvu_test.parquet",
        "mlvu_test/mlvu_test.parquet",
    ),
    videos=("MLVU_Test/MLVU_Test/video", "MLVU_Test/video", "mlvu_test/video", "mlvu_test"),
    question_count=502,
    read=read_mlvu_test,
    headline=Headline("M-Avg", ("type",)),
)
