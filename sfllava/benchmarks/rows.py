"""Files with one row per question: CSV, parquet and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sfllava.types import SfllavaError

Row = dict[str, Any]


class BenchmarkError(SfllavaError):
    """A question file or a folder of videos cannot be used; the message names the file and the row."""


def read_rows(path: Path, columns: Sequence[str] = ()) -> tuple[list[Row], list[Path]]:
    """Read the rows of one CSV, JSON or parquet file, one per question.

    Args:
        path: the file, or a folder that has one question file.
        columns: the columns that a parquet file must have; use `require` for the rows of other files.

    Returns:
        The rows as the file has them, and the files that were read.

    Raises:
        BenchmarkError: a file is missing or malformed.
    """
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if re.search(r"(qa?\.json|\.csv|\.parquet)$", p.name)]
        if len(found) != 1:
            raise BenchmarkError(f"{path}: needed a question file, got a folder with {len(found)} of them")
        path = found[0]
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _read_json(path)
    return (_read_parquet(path, columns) if suffix == ".parquet" else _read_csv(path)), [path]


def require(row: Row, fields: Sequence[str], where: str) -> None:
    """Raise BenchmarkError if a row lacks one of these fields; `where` names the file and the row."""
    if missing := [field for field in fields if row.get(field) is None]:
        raise BenchmarkError(f"{where}: missing {', '.join(missing)}; there are {', '.join(map(str, row))}")


def read_json(path: Path) -> Any:
    """Read a JSON file; duplicate keys in an object are an error.

    Raises:
        BenchmarkError: the file cannot be read.
    """
    try:
        return json.loads(_read_text(path), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path}: not readable as JSON: {error}") from error


def _read_csv(path: Path) -> list[Row]:
    text = _read_text(path)
    header = text.partition("\n")[0]
    if "," not in header and (found := next((s for s in (";", "\t", "|") if s in header), None)):
        raise BenchmarkError(f"{path}: needed a CSV file separated by commas, got one separated by {found!r}")
    # strict, because otherwise an unbalanced quote swallows the following rows
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns, rows = list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise BenchmarkError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from error
    if repeated := sorted({c for c in columns if columns.count(c) > 1}):
        raise BenchmarkError(f"{path}: column {repeated[0]!r} occurs twice in the header")
    for i, row in enumerate(rows, 1):
        if None in row or any(value is None for value in row.values()):
            raise BenchmarkError(f"{path}, row {i}: needed {len(columns)} fields as in the header, got more or fewer")
    return rows


def _read_parquet(path: Path, columns: Sequence[str]) -> list[Row]:
    import pyarrow
    from pyarrow import parquet, types

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if missing := [column for column in columns if column not in schema.names]:
                raise BenchmarkError(f"{path}: missing {', '.join(missing)}; there are {', '.join(schema.names)}")
            if repeated := [name for name in schema.names if schema.names.count(name) > 1]:
                raise BenchmarkError(f"{path}: column {repeated[0]!r} occurs twice")
            # some data sets keep the videos in the same file, as bytes
            bulky = (types.is_binary, types.is_large_binary, types.is_struct)
            kept = [field.name for field in schema if not any(is_bulky(field.type) for is_bulky in bulky)]
            return file.read(columns=kept).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise BenchmarkError(f"{path}: not readable as parquet: {reason}") from error


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
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BenchmarkError(f"{path}: needed a list of objects")
    return rows


def _unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot read the question file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchmarkError(
            f"{path}: needed UTF-8, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
