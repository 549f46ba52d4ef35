"""Question files -> questions: CSV as the benchmarks publish them, JSON as the published code prepares them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from sfllava.types import Question, SfllavaError, Task

Row = dict[str, Any]


class BenchmarkError(SfllavaError):
    """A question file or a folder of videos cannot be used; the message names the file and the row."""


def read_questions(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of one CSV or JSON file.

    Args:
        path: the file, or a folder that has one question file. `*_q.json` needs its `*_a.json` next to it.
        name: the benchmark's name, with which each key begins.
        task: the questions' task.

    Returns:
        The questions, one per row, and the files that were read.

    Raises:
        BenchmarkError: a file or row is malformed.
    """
    rows, files = read_rows(path)
    questions = [to_question(row, f"{name}/{i}", task, f"{path}, row {i + 1}") for i, row in enumerate(rows)]
    if not questions:
        raise BenchmarkError(f"{path}: no questions in it")
    first: dict[tuple[str, str, str], int] = {}
    for i, q in enumerate(questions, 1):  # ids alone may repeat: TGIF has one for each video
        if (row := first.setdefault((q.video, q.id, q.text), i)) != i:
            raise BenchmarkError(f"{path}, row {i}: the same video_name, question_id and question as row {row}")
    return questions, files


def read_rows(path: Path) -> tuple[list[Row], list[Path]]:
    """Read the rows of one CSV or JSON file, one per question.

    Args:
        path: the file, or a folder that has one question file.

    Returns:
        The rows as the file has them, and the files that were read.

    Raises:
        BenchmarkError: a file is missing or malformed.
    """
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if re.search(r"(qa?\.json|\.csv)$", p.name)]
        if len(found) != 1:
            raise BenchmarkError(f"{path}: needed a question file, got a folder with {len(found)} of them")
        path = found[0]
    return _read_json(path) if path.suffix.lower() == ".json" else (_read_csv(path), [path])


def _read_csv(path: Path) -> list[Row]:
    text = _read_text(path)
    header = text.partition("\n")[0]
    if "," not in header and (found := next((s for s in (";", "\t", "|") if s in header), None)):
        raise BenchmarkError(f"{path}: needed a CSV file separated by commas, got one separated by {found!r}")
    # strict, because an unbalanced quote would otherwise swallow the rows after it
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns, rows = list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise BenchmarkError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from error
    if repeated := sorted({c for c in columns if columns.count(c) > 1}):
        raise BenchmarkError(f"{path}: column {repeated[0]!r} occurs twice in the header")
    for i, row in enumerate(rows, 1):
        if None in row or any(value is None for value in row.values()):
            raise BenchmarkError(f"{path}, row {i}: needed {len(columns)} fields as in the header, got another number")
    return rows


def _read_json(path: Path) -> tuple[list[Row], list[Path]]:
    rows = _load_objects(path)
    if not path.stem.endswith("_q"):
        return rows, [path]
    answer_file = path.with_name(path.stem[:-2] + "_a.json")
    answers = _load_objects(answer_file)
    if len(answers) != len(rows):
        raise BenchmarkError(f"{answer_file}: needed {len(rows)} answers, one per question, got {len(answers)}")
    for i, (row, answer) in enumerate(zip(rows, answers), 1):
        if row.get("question_id") != answer.get("question_id"):
            raise BenchmarkError(
                f"{answer_file}, row {i}: needed question_id {row.get('question_id')!r}, "
                f"got {answer.get('question_id')!r}"
            )
        row |= {"answer": answer.get("answer"), "question_type": answer.get("type", "")}
    return rows, [path, answer_file]


def _load_objects(path: Path) -> list[Row]:
    try:
        rows = json.loads(_read_text(path), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BenchmarkError(f"{path}: needed a list of objects")
    return rows


def _unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    keys = [key for key, _ in pairs]
    repeated = next((key for key in keys if keys.count(key) > 1), None)
    if repeated is not None:
        raise ValueError(f"key {repeated!r} occurs twice in one object")
    return dict(pairs)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot read the question file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchmarkError(
            f"{path}: needed UTF-8, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error


def to_question(row: Row, key: str, task: Task, where: str) -> Question:
    """Make a question from one row of a question file.

    Args:
        row: its fields, as the file has them.
        key: the question's key.
        task: the question's task; `choice` needs options.
        where: the file and the row, for errors.

    Returns:
        The question.

    Raises:
        BenchmarkError: a field is missing or malformed.
    """
    fields = ["video_name", "question", "answer"]
    options = _options(row, where) if task == "choice" else []
    missing = [field for field in fields if row.get(field) is None]
    if task == "choice" and not options:
        missing.append("a0, a1, ... (or candidates)")
    if missing:
        raise BenchmarkError(f"{where}: missing {', '.join(missing)}; there are {', '.join(map(str, row))}")
    video, text, answer = (str(row[field]) for field in fields)
    if not text.strip():
        raise BenchmarkError(f"{where}: question is empty")
    _check_video_name(video, where)
    return Question(
        text=text,
        key=key,
        video=video,
        answer=answer,
        options=tuple(options),
        answer_index=_answer_index(row, options, answer, where) if task == "choice" else None,
        id=str(row.get("question_id", "")),
        type=str(row.get("question_type", "")),
        task=task,
    )


def _options(row: Row, where: str) -> list[str]:
    options = row.get("candidates")
    if options is None:
        columns = (c for c in row if re.fullmatch(r"a[0-9]{1,3}", c))
        options = [row[c] for c in sorted(columns, key=lambda c: int(c[1:]))]
    elif not isinstance(options, list):
        raise BenchmarkError(f"{where}: candidates must be a list, got {options!r}")
    options = [str(option) for option in options]
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


def _check_video_name(name: str, where: str) -> None:
    """Raise BenchmarkError if a name could lead out of the folder of videos."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BenchmarkError(f"{where}: video_name {name!r} does not name a video inside the folder of videos")
