"""Convert rows of question files to questions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sfllava.benchmarks.choices import text_list
from sfllava.benchmarks.rows import BenchmarkError, Row, read_rows, require
from sfllava.types import Clip, Question, Task


class QuestionsRead(NamedTuple):
    """The result of a reader that works around flaws of a file; other readers return only questions and files.

    Attributes:
        questions: the questions.
        files: the files that they were read from.
        flaws: the flaws of the files, one line each.
    """

    questions: list[Question]
    files: list[Path]
    flaws: Sequence[str] = ()


def read_questions(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of a CSV, JSON or parquet file with the columns of your own question files.

    Args:
        path: the file, or a folder that has one question file. `*_q.json` needs its `*_a.json` next to it.
        name: the benchmark's name; each key begins with it.
        task: the task of the questions.

    Returns:
        The questions, one per row, and the files that were read.

    Raises:
        BenchmarkError: a file or row is malformed.
    """
    rows, files = read_rows(path, ("video_name", "question", "answer"))
    questions = [to_question(row, f"{name}/{i}", task, f"{path}, row {i + 1}") for i, row in enumerate(rows)]
    if not questions:
        raise BenchmarkError(f"{path}: no questions in it")
    first: dict[tuple[Any, ...], int] = {}
    for i, q in enumerate(questions, 1):  # ids may repeat: TGIF has one id per video
        if (row := first.setdefault((q.video, q.clip, q.id, q.text), i)) != i:
            raise BenchmarkError(f"{path}, row {i}: the same video_name, question_id and question as row {row}")
    return questions, files


def read_table(
    path: Path, prefix: str, columns: Sequence[str], make: Callable[[Row, str, str], Question], unique: str = ""
) -> tuple[list[Question], list[Path]]:
    """Read the questions of a file with the columns of a published benchmark.

    Args:
        path: the file, or a folder that has one question file.
        prefix: each key begins with it.
        columns: the columns that each row must have.
        make: (row, key, where) -> the question; `where` names the file and the row for error messages.
        unique: a column without duplicate values, if there is one.

    Returns:
        The questions, one per row, and the files that were read.

    Raises:
        BenchmarkError: a file or row is malformed, or two rows have the same value in the unique column.
    """
    rows, files = read_rows(path, columns)
    questions: list[Question] = []
    first: dict[str, int] = {}
    for i, row in enumerate(rows):
        where = f"{files[0]}, row {i + 1}"
        require(row, columns, where)
        questions.append(make(row, f"{prefix}/{i}", where))
        if unique and (before := first.setdefault(str(row[unique]), i + 1)) != i + 1:
            raise BenchmarkError(f"{where}: the same {unique} as row {before}: {row[unique]!r}")
    if not questions:
        raise BenchmarkError(f"{path}: no questions in it")
    return questions, files


def to_question(row: Row, key: str, task: Task, where: str) -> Question:
    """Make a question from one row of a question file.

    Args:
        row: its fields, as the file has them.
        key: the question's key.
        task: the question's task; `choice` needs options.
        where: the file and the row, for error messages.

    Returns:
        The question.

    Raises:
        BenchmarkError: a field is missing or malformed, or the answer is not among the options.
    """
    options = _options(row, where) if task == "choice" else []
    needed = ["video_name", "question", "answer"]
    require(row, needed if options or task != "choice" else [*needed, "a0, a1, ... (or candidates)"], where)
    answer = str(row["answer"])
    return make_question(
        where,
        key=key,
        video=row["video_name"],
        text=row["question"],
        answer=answer,
        options=tuple(options),
        answer_index=_answer_index(row, options, answer, where) if task == "choice" else None,
        id=str(row.get("question_id", "")),
        type=str(row.get("question_type", "")),
        task=task,
        clip=read_clip(row, where),
        subtitle_file=str(row.get("subtitles") or ""),
    )


def make_question(where: str, *, text: Any, video: Any, **fields: Any) -> Question:
    """Make a question after checking its text and the name of its video.

    Args:
        where: the file and the row, for error messages.
        text: its text.
        video: the name of its video.
        **fields: the other fields of `Question`.

    Raises:
        BenchmarkError: the text is empty, or the name could lead out of the folder of videos.
    """
    if not str(text).strip():
        raise BenchmarkError(f"{where}: question is empty")
    name = str(video)
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BenchmarkError(f"{where}: video_name {name!r} does not name a video inside the folder of videos")
    return Question(text=str(text), video=name, **fields)


def choice_question(where: str, options: Sequence[str], index: int | None, answer: str, **fields: Any) -> Question:
    """Make a multiple-choice question of a published benchmark.

    Args:
        where: the file and the row, for error messages.
        options: its options, without letters.
        index: the index of the right option; None if the answer is not among the options, so every reply is wrong.
        answer: the answer in the file; the question keeps it if it is not among the options.
        **fields: the other arguments of `make_question`.

    Raises:
        BenchmarkError: as in `make_question`, or there are no options.
    """
    if not options:
        raise BenchmarkError(f"{where}: needed options, got none")
    right = answer if index is None else options[index]
    return make_question(where, task="choice", options=tuple(options), answer_index=index, answer=right, **fields)


def read_clip(row: Row, where: str) -> Clip | None:
    """Return the clip from `start` to `end` of a row, in seconds; None if both are empty.

    Args:
        row: its fields; `fps` is the frame rate of a folder of frame images.
        where: the file and the row, for error messages.

    Raises:
        BenchmarkError: a bound is not a number, the start is negative, or the end is not after the start.
    """
    start, end = read_number(row, "start", where), read_number(row, "end", where)
    if start is not None and start < 0:
        raise BenchmarkError(f"{where}: start must be at least 0 seconds, got {start:g}")
    if end is not None and end <= (start or 0):
        raise BenchmarkError(f"{where}: end must be after the start at {start or 0:g} seconds, got {end:g}")
    fps = read_number(row, "fps", where)
    if fps is not None and fps <= 0:
        raise BenchmarkError(f"{where}: fps must be above 0, got {fps:g}")
    clip = Clip(start, end, fps)
    return None if clip == Clip() else clip


def read_number(row: Row, field: str, where: str) -> float | None:
    """Return a numeric field; None if it is empty.

    Raises:
        BenchmarkError: the field is not a number.
    """
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isnan(number) and isinstance(value, float):  # an empty cell of a parquet file
        return None
    if not math.isfinite(number):
        raise BenchmarkError(f"{where}: {field} must be a number, got {value!r:.80}")
    return number


def find_flaws(questions: Sequence[Question]) -> list[str]:
    """Return the flaws of questions that can still be asked, one line for each kind of flaw."""
    outside = [q.key for q in questions if q.options and q.answer_index is None]
    backwards = [
        q.key for q in questions
        if q.clip and q.clip.end is not None and (q.clip.end < 0 or q.clip.end < (q.clip.start or 0))
    ]  # fmt: skip
    return describe_flaw("the answer is not among the options, so every reply is wrong", outside) + describe_flaw(
        "the clip ends before it starts, so the question fails", backwards
    )


def describe_flaw(what: str, places: Sequence[str]) -> list[str]:
    """Return one line with a flaw, its number of occurrences and the first ones; an empty list if there are none."""
    more = ", ..." if len(places) > 5 else ""
    return [f"{what}: {len(places):,} ({', '.join(places[:5])}{more})"] if places else []


def _options(row: Row, where: str) -> list[str]:
    if row.get("candidates") is not None:
        options = text_list(row["candidates"], "candidates", where)
    else:
        columns = (c for c in row if re.fullmatch(r"a[0-9]{1,3}", c))
        options = ["" if row[c] is None else str(row[c]) for c in sorted(columns, key=lambda c: int(c[1:]))]
    while options and not options[-1].strip():  # a row with fewer options than the file has columns
        options.pop()
    if blank := [i for i, option in enumerate(options) if not option.strip()]:
        raise BenchmarkError(f"{where}: option a{blank[0]} is empty, but a later one is not")
    return options


def _answer_index(row: Row, options: list[str], answer: str, where: str) -> int:
    number = row.get("answer_number")
    is_label = answer not in options and re.fullmatch(r"\(?([A-Za-z]|[0-9]{1,2})[).:]?", answer.strip())
    hint = "; answer must be the option's text, not its letter or number" if is_label else ""
    if number is not None and re.fullmatch(r"\s*[0-9]{1,9}\s*", str(number)):
        index = int(number)
        if index < len(options) and options[index] == answer:
            return index
        raise BenchmarkError(f"{where}: answer_number {number} is not the option {answer!r}{hint}")
    if answer not in options:
        raise BenchmarkError(f"{where}: answer {answer!r} is none of the options {', '.join(map(repr, options))}{hint}")
    return options.index(answer)
