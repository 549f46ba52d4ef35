"""Columns of codes: distinct values once, and for each row the index of its value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


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
    """A column that grows by blocks; its values are in the order in which they came."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}
        self._blocks: list[np.ndarray] = []

    def append(self, block: Coded) -> None:
        own = np.full(len(block.values) + 1, -1, np.int32)  # the last is that of code -1
        for code in block.first_rows():
            own[code] = self._codes.setdefault(block.values[code], len(self._codes))
        self._blocks.append(own[block.codes])

    def append_value(self, value: Any, rows: int) -> None:
        """Append one value for a number of rows."""
        if rows:
            self._blocks.append(np.full(rows, self._codes.setdefault(value, len(self._codes)), np.int32))

    def column(self) -> Coded:
        self._blocks = [np.concatenate([np.empty(0, np.int32), *self._blocks])]
        return Coded(self._blocks[0], list(self._codes))


def combine(*codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct combinations of several columns of codes.

    Returns:
        (N) the number of each row's combination, and for each combination a row that has it.
    """
    found, rows = np.zeros(len(codes[0]), np.int64), np.empty(0, np.int64)
    for each in codes:
        wide = found * (int(each.max(initial=0)) + 2) + each + 1
        _, rows, found = np.unique(wide, return_index=True, return_inverse=True)
    return found, rows


Block = dict[str, Any]
"""Field -> its column: numbers as (N) float64, NaN where there is none; an object of numbers as their sum, NaN for an
empty one; everything else as `Coded`, lists as tuples."""
