"""Video-MME (Fu et al., 2024): short, medium and long videos, without or with subtitles.

744 of the 900 videos have subtitles; questions about the others are asked without.
"""

from __future__ import annotations

from pathlib import Path

from sfllava.benchmarks.base import Headline, Spec
from sfllava.benchmarks.choices import find_letter, strip_letters, text_list
from sfllava.benchmarks.question_files import choice_question, read_table
from sfllava.benchmarks.rows import Row
from sfllava.types import Question, Task

_COLUMNS = ("videoID", "question_id", "task_type", "question", "options", "answer", "duration", "domain")


def read_videomme(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of the published parquet file, or of JSON or CSV with its columns."""
    return read_table(path, name, _COLUMNS, _question, unique="question_id")


def _question(row: Row, key: str, where: str) -> Question:
    options = strip_letters(text_list(row["options"], "options", where), where)
    return choice_question(
        where,
        options,
        find_letter(str(row["answer"]), options),
        str(row["answer"]),
        key=key,
        text=row["question"],
        video=row["videoID"],
        id=str(row["question_id"]),
        type=str(row["task_type"]),
        groups={
            "duration": str(row["duration"]),
            "domain": str(row["domain"]),
            "sub_category": str(row.get("sub_category") or ""),
        },
        subtitle_file=f"{row['videoID']}.srt",
    )


SPEC = Spec(
    name="videomme",
    task="choice",
    questions=("videomme/test-00000-of-00001.parquet", "Video-MME/videomme/test-00000-of-00001.parquet"),
    videos=("videomme/data", "Video-MME/data", "videomme/videos", "Video-MME/videos"),
    subtitles=("videomme/subtitle", "Video-MME/subtitle"),
    question_count=2_700,
    video_count=900,
    read=read_videomme,
    headline=Headline("mean over durations", ("duration",)),
)
