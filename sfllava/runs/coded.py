"""Columns of codes: distinct values once, and for each row the index of its value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Block = dict[str, Any]
"""Field -> its column: numbers as (N) float64, NaN where there is none; an object of numbers as their sum, NaN for an
empty one; everything else as `Coded`, lists as tuples."""


class Coded:
    """A column of objects, such as texts, in which equal ones are stored once.

    Attributes:
        codes: (N) int32, the index of each row's value; -1 where there is none.
        values: the distinct values.
    """

    def __init__(self, codes: np.ndarray, values: Sequence[Any]) -> None:
        self.codes, self.values = codes, values

    def __len__(self) -> int:
        return len(self.codes)

    def at(self, row: int) -> Any:
        """Return the value of one row; None where there is none."""
        code = self.codes[row]
        return self.values[code] if code >= 0 else None

    def values_at(self, rows: np.ndarray) -> list[Any]:
        """Return the values of some rows; None where there is none."""
        return list(map([*self.values, None].__getitem__, self.codes[rows].tolist()))  # -1 is the last

    def take(self, rows: np.ndarray) -> Coded:
        """Return some rows."""
        return Coded(self.codes[rows], self.values)

    def first_rows(self) -> dict[int, int]:
        """Return the first row of each value in use, by its code, in the order of the rows."""
        first = np.full(len(self.values) + 1, -1)
        first[self.codes[::-1]] = np.arange(len(self.codes))[::-1]
        used = np.flatnonzero(first[:-1] >= 0)
        used = used[np.argsort(first[used])]
        return dict(zip(used.tolist(), first[used].tolist()))

    def map(self, values: Iterable[Any], dtype: Any) -> np.ndarray:
        """Return (N) the item of `values`, which has one per distinct value and one for a missing value."""
        return np.fromiter(values, dtype)[self.codes]


class CodedColumn:
    """A column that grows; its values are in the order in which they came."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}
        self._values: list[Any] = []
        self._blocks: list[np.ndarray] = []

    def append(self, block: Coded) -> None:
        own = np.full(len(block.values) + 1, -1, np.int32)  # the last is that of code -1
        used = list(block.first_rows())
        own[used] = [self._code_of(block.values[code]) for code in used]
        self._blocks.append(own[block.codes])

    def append_value(self, value: Any, rows: int) -> None:
        """Append one value for a number of rows."""
        if rows:
            self._blocks.append(np.full(rows, self._code_of(value), np.int32))

    def column(self) -> Coded:
        self._blocks = [np.concatenate([np.empty(0, np.int32), *self._blocks])]
        return Coded(self._blocks[0], self._values)

    def _code_of(self, value: Any) -> int:
        # objects have no hash, and True equals 1
        key = value if isinstance(value, str | tuple) else (type(value), repr(value))
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = len(self._values)
            self._values.append(value)
        return code


def encode(values: Iterable[Any]) -> Coded:
    """Return values as a column, None as missing."""
    column = CodedColumn()
    codes = [-1 if value is None else column._code_of(value) for value in values]
    return Coded(np.array(codes, np.int32), column._values)


def combine(*codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct combinations of several columns of codes.

    Returns:
        (N) the number of each row's combination, and for each combination a row that has it.
    """
    wide, size = np.zeros(len(codes[0]), np.int64), 1
    for each in codes:
        span = int(each.max(initial=-1)) + 2
        if size * span > 2**62:
            wide = np.unique(wide, return_inverse=True)[1]
            size = int(wide.max(initial=0)) + 1
        wide, size = wide * span + each + 1, size * span
    _, rows, found = np.unique(wide, return_index=True, return_inverse=True)
    return found, rows


def join_blocks(blocks: Iterable[Block]) -> Block:
    """Return blocks, at least one, as one."""
    coded: dict[str, CodedColumn] = {}
    numbers: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        for name, column in block.items():
            if isinstance(column, Coded):
                coded.setdefault(name, CodedColumn()).append(column)
            else:
                numbers.setdefault(name, []).append(column)
    found: Block = {name: column.column() for name, column in coded.items()}
    return found | {name: np.concatenate(parts) for name, parts in numbers.items()}
