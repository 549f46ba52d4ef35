"""An experiment's plan as text: what all runs have in common first, then one line per run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, str | Path]
_OWN = ("benchmark", "questions")  # facts that belong to a run also where all are equal


def format_plan(title: str, rows: Sequence[Row], problems: Sequence[str], notes: Sequence[str]) -> str:
    """Return the text of a plan.

    Args:
        title: The first line.
        rows: Facts of each run, by what they are about; the first one is its name. Of paths in all rows, the folder
            that they have in common is said once.
        problems: Why runs cannot be done.
        notes: Further lines.
    """
    common, differing = [], []
    for about in rows[0] if rows else ():
        cells = [row[about] for row in rows]
        if isinstance(cells[0], Path):
            folder, names = _split(cells)  # type: ignore[arg-type]  # a fact is a path in all rows, or in none
            common += [(about, f"in {folder}")] if folder else []
            differing.append((about, names))
        elif len(rows) > 1 and len(set(cells)) == 1 and about not in _OWN:
            common.append((about, str(cells[0])))
        else:
            differing.append((about, [str(cell) for cell in cells]))
    return "\n".join(
        [
            title,
            *(f"  {about:{max(len(a) for a, _ in common)}}  {text}" for about, text in common),
            *([""] if common else []),
            *_table(differing, len(rows)),
            "",
            *(f"  MISSING  {problem}" for problem in problems),
            *(f"  note: {note}" for note in notes),
        ]
    )


def _table(columns: Sequence[tuple[str, Sequence[str]]], count: int) -> list[str]:
    """Return a line of headings, and one numbered line per run."""
    numbers = ["", *(f"{i}." for i in range(1, count + 1))]
    cells = [numbers, *([about, *texts] for about, texts in columns)]
    widths = [max(map(len, column)) for column in cells]
    right = [0, *(i for i, column in enumerate(cells) if column[0] == "questions")]
    return [
        "  "
        + "  ".join(
            f"{column[line]:{'>' if i in right else '<'}{width}}"
            for i, (column, width) in enumerate(zip(cells, widths))
        ).rstrip()
        for line in range(count + 1)
    ]


def _split(paths: Sequence[Path]) -> tuple[str, list[str]]:
    """Return the folder that paths have in common, or an empty text, and the rest of each."""
    try:
        folder = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # some are absolute
        folder = ""
    return folder, [os.path.relpath(path, folder) if folder else str(path) for path in paths]
