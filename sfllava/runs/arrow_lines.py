"""Lines of JSON -> columns by pyarrow, wherever Python's reader would read the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json

from sfllava.runs.coded import Block, Coded, combine

_compute: Any = pyarrow.compute  # its functions are made on import, where type checkers do not see them
_THREAD_BYTES = 1 << 20  # what one thread of pyarrow reads at a time
_DEEPEST = 400  # more brackets than this in a line could nest too deeply for Python's reader
_JOINT = "\x1f"
_ARROW = {
    str: pa.string(),
    str | None: pa.string(),
    int | None: pa.int64(),
    int | float | None: pa.float64(),
    bool | None: pa.bool_(),
}
_NULLABLE = (str | None, int | None, int | float | None, bool | None)


def read_plain_lines(data: bytes, needed: Mapping[str, Any], optional: Mapping[str, Any]) -> Block | None:
    """Return the columns of lines; None if Python's reader could read other values, or none."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    if not _are_plain(data, ends):
        return None
    kinds = {**needed, **optional}
    names = {name: list(_names_in(data, name)) for name, kind in kinds.items() if isinstance(kind, dict)}
    try:
        table = _read_json(data, kinds, names, int(np.diff(ends, prepend=-1).max()))
    except pa.ArrowInvalid:
        return None
    nulls = {name: table.column(name).null_count for name in needed}
    if table.num_rows != len(ends) or not _are_explicit(data, nulls, needed):
        return None
    lines = _Lines(data, table, data.count(b"null") > sum(nulls.values()))
    with contextlib.suppress(_UnlikePythonError):
        return {name: lines.column(name, kind) for name, kind in kinds.items()}
    return None


def _names_in(data: bytes, name: str) -> Iterable[str]:
    """Return the names in an object of the first line, whose order counts."""
    try:
        found = json.loads(data[: data.index(b"\n")])
    except (ValueError, RecursionError):
        return ()
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, dict) else ()


def _read_json(data: bytes, kinds: Mapping[str, Any], names: Mapping[str, Sequence[str]], longest: int) -> pa.Table:
    fields = []
    for name, kind in kinds.items():
        if isinstance(kind, dict):
            inside = pa.string() if kind[str] is str else pa.float64()
            fields.append((name, pa.struct([(each, inside) for each in names[name]])))
        else:
            fields.append((name, pa.list_(pa.string()) if isinstance(kind, list) else _ARROW[kind]))
    return pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(block_size=max(_THREAD_BYTES, longest)),
        # the names in an object are not known; without one, other fields need not be read
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(fields), unexpected_field_behavior="infer" if names else "ignore"
        ),
    )


def _are_plain(data: bytes, ends: np.ndarray) -> bool:
    """Return whether each line is UTF-8 and can only be one object, or damaged."""
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError:
        return False
    found, starts = np.frombuffer(data, np.uint8), np.concatenate([[0], ends[:-1] + 1])
    if (ends == starts).any() or (found[starts] != ord("{")).any() or (found[ends - 1] != ord("}")).any():
        return False
    long = [data[starts[line] : ends[line]] for line in np.flatnonzero(ends - starts > 2 * _DEEPEST)]
    return all(line.count(b"[") + line.count(b"{") <= _DEEPEST for line in long)


def _are_explicit(data: bytes, nulls: Mapping[str, int], needed: Mapping[str, Any]) -> bool:
    """Return whether nulls are only where they may be; pyarrow does not tell a missing field from null."""
    if any(count for name, count in nulls.items() if needed[name] not in _NULLABLE):
        return False
    return all(_count_nulls(data, name, count) == count for name, count in nulls.items() if count)


def _count_nulls(data: bytes, name: str, expected: int = 1) -> int:
    """Count the fields of a name that are null. A text cannot contain this: its quotes have a backslash before them."""
    field = json.dumps(name).encode()
    found = data.count(field + b": null")
    return found if found >= expected else found + data.count(field + b":null")  # most files have a space


class _UnlikePythonError(Exception):
    """pyarrow may have read something else than Python's reader would."""


@dataclass(frozen=True)
class _Lines:
    """Lines and their table; `more_nulls` is whether they may have nulls beyond those of needed fields."""

    data: bytes
    table: pa.Table
    more_nulls: bool

    def column(self, name: str, kind: Any) -> Any:
        column = self.table.column(name).combine_chunks()
        if isinstance(kind, dict):
            return _sums(self._children(column), len(column)) if kind[str] is not str else self._objects(column)
        if isinstance(kind, list):
            return self._lists(column)
        if kind in (str, str | None):
            return _texts(column)
        numbers = cast(Any, column).cast(pa.float64()).to_numpy(zero_copy_only=False)
        if np.count_nonzero(~np.isfinite(numbers)) != column.null_count:
            raise _UnlikePythonError
        return numbers

    def _lists(self, column: Any) -> Coded:
        """Encode lists of texts, by the texts joined by a character that none of them has."""
        texts = column.flatten()
        if texts.null_count or (len(texts) and b"\\u001" in self.data):
            raise _UnlikePythonError
        joined = _texts(_compute.binary_join(column, _JOINT)).codes
        empty = _compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False) == 0
        codes, rows = combine(joined, empty)  # no text and one empty text look alike when joined
        return Coded(codes.astype(np.int32), [tuple(each or ()) for each in column.take(pa.array(rows)).to_pylist()])

    def _children(self, column: Any) -> dict[str, Any]:
        """Return the columns inside objects by name, in the order in which the names come."""
        found = {field.name: each for field, each in zip(column.type, column.flatten())}
        for name, each in found.items():
            if self.more_nulls and each.null_count and _count_nulls(self.data, name):
                raise _UnlikePythonError
        first = {name: _compute.index(each.is_valid(), True).as_py() for name, each in found.items()}
        return {name: found[name] for name in sorted(found, key=lambda name: first[name])}

    def _objects(self, column: Any) -> Coded:
        """Encode objects of texts."""
        children = self._children(column)
        if any(not pa.types.is_string(each.type) for each in children.values()):
            raise _UnlikePythonError
        missing = ~column.is_valid().to_numpy(zero_copy_only=False)
        codes, rows = combine(missing, *(_texts(each).codes for each in children.values()))
        values = [
            {} if each is None else {name: each[name] for name in children if each[name] is not None}
            for each in column.take(pa.array(rows)).to_pylist()
        ]
        return Coded(codes.astype(np.int32), values)


def _texts(column: Any) -> Coded:
    encoded = column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Coded(codes, encoded.dictionary.to_pylist())


def _sums(children: Mapping[str, Any], rows: int) -> np.ndarray:
    sums, known = np.zeros(rows), np.zeros(rows, bool)
    for each in children.values():
        if not (pa.types.is_floating(each.type) or pa.types.is_integer(each.type)):
            raise _UnlikePythonError
        numbers = each.cast(pa.float64())
        sums += numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
        known |= numbers.is_valid().to_numpy(zero_copy_only=False)
    if not np.isfinite(sums).all():
        raise _UnlikePythonError
    return np.where(known, sums, np.nan)
