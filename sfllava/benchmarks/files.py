"""Question files -> Questions: CSV as the benchmarks publish them, JSON as the published code prepares them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from sfllava.types import Question, SfllavaError, Task


class BenchmarkError(SfllavaError):
    """A question file or a folder of videos that cannot be used; the message names the file and the row."""


def read_questions(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """The questions of one CSV or JSON file (with `*_q.json`, also its `*_a.json`), and the files read."""
    rows, files = read_rows(path)
    questions = [to_question(row, f"{name}/{i}", task, f"{path}, row {i + 1}") for i, row in enumerate(rows)]
    if not questions:
        raise BenchmarkError(f"{path}: no questions in it")
    first: dict[tuple[str, str, str], int] = {}
    for i, q in enumerate(questions, 1):  # ids alone may repeat: TGIF has one for each video
        if (row := first.setdefault((q.video, q.id, q.text), i)) != i:
            raise BenchmarkError(f"{path}, row {i}: the same video_name, question_id and question as row {row}")
    return questions, files


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """A row a question, as the file has them."""
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if re.search(r"(qa?\.json|\.csv)$", p.name)]
        if len(found) != 1:
            raise BenchmarkError(f"{path}: needed a question file, got a folder with {len(found)} of them")
        path = found[0]
    if path.suffix.lower() == ".json":
        return _read_json(path)
    text = _text(path)
    header = text.partition("\n")[0]
    if "," not in header and (found := next((s for s in (";", "\t", "|") if s in header), None)):
        raise BenchmarkError(f"{path}: needed a CSV file separated by commas, got one separated by {found!r}")
    # strict: an unbalanced quote would otherwise swallow the rows behind it
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns, read = list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise BenchmarkError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from error
    doubled = sorted({c for c in columns if columns.count(c) > 1})
    if doubled:
        raise BenchmarkError(f"{path}: column {doubled[0]!r} stands twice in the header")
    rows = []
    for i, row in enumerate(read, 1):
        if None in row or any(value is None for value in row.values()):
            raise BenchmarkError(f"{path}, row {i}: needed {len(columns)} fields as in the header, got another number")
        rows.append(row)
    return rows, [path]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot read the question file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchmarkError(
            f"{path}: needed UTF-8, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    doubled = next((key for key in keys if keys.count(key) > 1), None)
    if doubled is not None:
        raise ValueError(f"key {doubled!r} stands twice in one object")
    return dict(pairs)


def _read_json(path: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    def load(file: Path) -> list[dict[str, Any]]:
        try:
            rows = json.loads(_text(file), object_pairs_hook=_no_doubles)
        except (ValueError, RecursionError) as error:
            raise BenchmarkError(f"{file}: not readable as JSON: {error}") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BenchmarkError(f"{file}: needed a list of objects")
        return rows

    rows = load(path)
    if not path.stem.endswith("_q"):
        return rows, [path]
    twin = path.with_name(path.stem[:-2] + "_a.json")
    answers = load(twin)
    if len(answers) != len(rows):
        raise BenchmarkError(f"{twin}: needed {len(rows)} answers as there are questions, got {len(answers)}")
    for i, (row, answer) in enumerate(zip(rows, answers), 1):
        if row.get("question_id") != answer.get("question_id"):
            raise BenchmarkError(
                f"{twin}, row {i}: needed question_id {row.get('question_id')!r}, got {answer.get('question_id')!r}"
            )
        row |= {"answer": answer.get("answer"), "question_type": answer.get("type", "")}
    return rows, [path, twin]


def to_question(row: dict[str, Any], key: str, task: Task, where: str) -> Question:
    """One row as a Question; BenchmarkError says `where` and which field."""
    wanted = ["video_name", "question", "answer"]
    options = _options(row, where) if task == "choice" else []
    missing = [field for field in wanted if row.get(field) is None]
    if task == "choice" and not options:
        missing.append("a0, a1, ... (or candidates)")
    if missing:
        raise BenchmarkError(f"{where}: missing {', '.join(missing)}; there are {', '.join(map(str, row))}")
    video, text, answer = (str(row[field]) for field in wanted)
    if not text.strip():
        raise BenchmarkError(f"{where}: question is empty")
    return Question(
        text=text,
        key=key,
        video=check_video_name(video, where),
        answer=answer,
        options=tuple(options),
        answer_index=_answer_index(row, options, answer, where) if task == "choice" else None,
        id=str(row.get("question_id", "")),
        type=str(row.get("question_type", "")),
        task=task,
    )


def _options(row: dict[str, Any], where: str) -> list[str]:
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
        raise BenchmarkError(f"{where}: option a{blank[0]} is empty, and a later one is not")
    return options


def _answer_index(row: dict[str, Any], options: list[str], answer: str, where: str) -> int:
    number = row.get("answer_number")
    named = answer not in options and re.fullmatch(r"\(?([A-Za-z]|[0-9]{1,2})[).:]?", answer.strip())
    hint = "; answer must be the option's text, not its letter or number" if named else ""
    if number is not None and re.fullmatch(r"\s*[0-9]{1,9}\s*", str(number)):
        index = int(number)
        if index < len(options) and options[index] == answer:
            return index
        raise BenchmarkError(f"{where}: answer_number {number} is not the option {answer!r}{hint}")
    if answer not in options:
        raise BenchmarkError(f"{where}: answer {answer!r} is none of the options {', '.join(map(repr, options))}{hint}")
    return options.index(answer)


def check_video_name(name: str, where: str) -> str:
    """The name, if it stays inside the folder of videos."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BenchmarkError(f"{where}: video_name {name!r} does not name a video inside the folder of videos")
    return name
