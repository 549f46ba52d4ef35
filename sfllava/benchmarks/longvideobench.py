"""LongVideoBench (Wu et al., 2024), the validation set: questions about moments of videos up to an hour long."""

from __future__ import annotations

from pathlib import Path

from sfllava.benchmarks.choices import text_list
from sfllava.benchmarks.question_files import choice_question, read_number, read_table
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, hub_url
from sfllava.benchmarks.rows import BenchmarkError, Row
from sfllava.benchmarks.spec import Spec
from sfllava.types import Question, Task

_COLUMNS = ("id", "video_path", "question", "correct_choice", "duration_group", "question_category")
_FILLER = "N/A"
"""The value of option columns that a question does not use"""


def read_longvideobench(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of lvb_val.json, or of the Hub's parquet file."""
    return read_table(path, name, _COLUMNS, _question, unique="id")


def _question(row: Row, key: str, where: str) -> Question:
    options = _options(row, where)
    number = read_number(row, "correct_choice", where)
    if number is None or number != int(number):
        raise BenchmarkError(f"{where}: correct_choice must be a whole number, got {row['correct_choice']!r:.80}")
    return choice_question(
        where,
        options,
        int(number) if 0 <= number < len(options) else None,
        f"option {int(number)} of {len(options)}",
        key=key,
        text=row["question"],
        video=row["video_path"],
        id=str(row["id"]),
        type=str(row["question_category"]),
        groups={"duration": str(row["duration_group"]), "topic": str(row.get("topic_category") or "")},
        subtitle_file=str(row.get("subtitle_path") or ""),
        subtitle_start=read_number(row, "starting_timestamp_for_subtitles", where) or 0.0,
    )


def _options(row: Row, where: str) -> list[str]:
    if row.get("candidates") is not None:
        return text_list(row["candidates"], "candidates", where)
    columns = [row.get(f"option{i}") for i in range(5)]
    while columns and columns[-1] in (None, _FILLER):
        columns.pop()
    if None in columns:
        raise BenchmarkError(f"{where}: option{columns.index(None)} is missing, but a later one is not")
    return [str(option) for option in columns]


# Its data set needs a login and accepted terms, so we could not read a full revision. The branch is "main", and the
# SHA-256 pins the contents.
_DOWNLOADS = Downloads(
    questions=(
        RemoteFile(
            "longvideobench/validation-00000-of-00001.parquet",
            hub_url("longvideobench/LongVideoBench", "main", "validation-00000-of-00001.parquet"),
            426_680,
            "5f370287edbfb9875562b116686d50208d0d40615f5b407f970448868b6bc108",
        ),
    ),
    licence="CC BY-NC-SA 4.0; accept the terms on the Hub page, then run `hf auth login`",
    videos=Videos(
        licence="CC BY-NC-SA 4.0, not for commercial use; the videos belong to their owners; you must accept terms",
        place="https://huggingface.co/datasets/longvideobench/LongVideoBench",
        size="162 GB, one tar in 31 pieces (videos.tar.part.*), and 117 MB of subtitles",
    ),
)

SPEC = Spec(
    name="longvideobench",
    task="choice",
    questions=(
        "longvideobench/lvb_val.json",
        "LongVideoBench/lvb_val.json",
        "longvideobench/validation-00000-of-00001.parquet",
        "LongVideoBench/validation-00000-of-00001.parquet",
    ),
    videos=("longvideobench/videos", "LongVideoBench/videos"),
    subtitles=("longvideobench/subtitles", "LongVideoBench/subtitles"),
    question_count=1_337,
    video_count=753,
    read=read_longvideobench,
    downloads=_DOWNLOADS,
)
