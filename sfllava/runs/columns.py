"""Rows of a JSON lines file as columns, for files of a million rows.

pyarrow reads blocks of lines. A block on which it and Python's reader could differ, because a line is damaged or
unusual, is read row by row by `files.parse_lines`, whose errors name the line and the field.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.files import Row, RunError, parse_lines
from sfllava.runs.arrow_lines import read_plain_lines
from sfllava.runs.coded import Block, Coded, CodedColumn, combine, encode

_BLOCK_BYTES = 16 << 20


def read_blocks(path: Path, what: str, needed: Mapping[str, Any], optional: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the columns of a JSON lines file in blocks, at least one; a half-written last line is skipped.

    Args:
        path: The file; without one there are no rows.
        what: What each line must be, for error messages.
        needed: The fields that each row must have, and their kinds, as `files.read_lines` takes them.
        optional: Fields that a row may have, and their usual kinds; values of other kinds are kept as they are.

    Raises:
        RunError: A line is no such row; the message has the line's number and the field.
    """
    before = 0
    for data in _whole_lines(path):
        block = read_plain_lines(data, needed, optional)
        if block is None:
            rows = list(parse_lines(io.BytesIO(data), path, what, needed, before + 1))
            block = _columns_of(rows, needed, optional)
        before += len(next(iter(block.values())))
        yield block
    if not before:
        yield _columns_of([], needed, optional)


def read_blocks_once(
    path: Path, what: str, needed: Mapping[str, Any], optional: Mapping[str, Any], key: Sequence[str], again: str
) -> Iterator[Block]:
    """Yield the columns of a journal in blocks, as `read_blocks`; in the end the rows are checked for repetitions.

    Args:
        path, what, needed, optional: As for `read_blocks`.
        key: The fields that are together unique in the file.
        again: How an error names a second row of one key, with `{}` for each field of the key.

    Raises:
        RunError: A line is no such row, or repeats a key; the message has the line's number.
    """
    columns = [CodedColumn() for _ in key]
    try:
        for block in read_blocks(path, what, needed, optional):
            for column, name in zip(columns, key):
                column.append(block[name])
            yield block
    except RunError:
        _check_once(path, [column.column() for column in columns], again)
        raise
    _check_once(path, [column.column() for column in columns], again)


def _check_once(path: Path, columns: Sequence[Coded], again: str) -> None:
    keys, _ = combine(*(column.codes for column in columns))
    order = np.argsort(keys, kind="stable")
    repeated = order[1:][keys[order[1:]] == keys[order[:-1]]]
    if len(repeated):
        row = int(repeated.min())
        raise RunError(f"{path}, line {row + 1}: {again.format(*(c.values[c.codes[row]] for c in columns))}")


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield a file in blocks of whole lines."""
    if not path.exists():
        return
    rest = b""
    with path.open("rb") as file:
        while data := file.read(_BLOCK_BYTES):
            end = data.rfind(b"\n") + 1
            if end:
                yield rest + data[:end]
                rest = data[end:]
            else:
                rest += data


def _columns_of(rows: Sequence[Row], needed: Mapping[str, Any], optional: Mapping[str, Any]) -> Block:
    """Return rows as columns."""
    block: Block = {}
    for name, kind in {**needed, **optional}.items():
        values: list[Any] = [row.get(name) for row in rows]
        if kind in (int | None, int | float | None, bool | None):
            block[name] = np.array([np.nan if value is None else float(value) for value in values], float)
        elif isinstance(kind, dict) and name in needed:
            block[name] = np.array([sum(value.values()) if value else np.nan for value in values], float)
        else:
            block[name] = encode(map(tuple, values) if isinstance(kind, list) else values)
    return block
