"""Tables and paragraphs as text that fits a terminal. Names that are too long for their column are wrapped, not cut."""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Collection, Sequence

WIDEST = 120
_NARROWEST = 12  # no column is wrapped to less
_GAP = "  "
_PLACES = re.compile(r"[^-_ /:,]*[-_ /:,]?")  # a name may be broken behind these


def terminal_width() -> int:
    """Return the columns that text may take: those of the terminal, at most 120; 120 where there is no terminal."""
    return max(40, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))


def table(
    rows: Sequence[Sequence[str]],
    head: Sequence[str],
    *,
    right: Sequence[int] = (),
    wrap: Sequence[int] = (0,),
    fold: Sequence[int] = (),
    width: int | None = None,
) -> str:
    """Format rows as a table.

    Args:
        rows: The cells of each row. Characters that a terminal does not print, such as escape codes, are written out.
        head: The name of each column.
        right: The indices of the columns that are aligned to the right.
        wrap: The indices of the columns whose cells may be broken into several lines.
        fold: The indices of columns of names. Where the table is too wide, the beginning that all these names have in
            common is written once below it, and "…" in its place.
        width: The columns that the table may take; default: `terminal_width()`.

    Returns:
        Lines without spaces at their ends. Where the columns that cannot be wrapped leave too little room, lines are
        longer than `width`.
    """
    lines = [[escape_controls(cell) for cell in row] for row in (head, *rows)]
    most = width or terminal_width()
    widths, below = _widths(lines), []
    start = common_start([line[i] for line in lines[1:] for i in fold])
    if start and sum(widths) + len(_GAP) * (len(widths) - 1) > most:
        for line in lines[1:]:
            for i in fold:
                line[i] = "…" + line[i].removeprefix(start)
        widths, below = _widths(lines), [f"… is {start}"]
    _shrink(widths, list(wrap), most, [_width(name) for name in head])
    shown = []
    for line in lines:
        cells = [_wrapped(cell, widths[i]) if i in wrap else [cell] for i, cell in enumerate(line)]
        for k in range(max(map(len, cells))):
            parts = [_padded(cell[k] if k < len(cell) else "", widths[i], i in right) for i, cell in enumerate(cells)]
            shown.append(_GAP.join(parts).rstrip())
    return "\n".join(shown + below)


def markdown(rows: Sequence[Sequence[str]], head: Sequence[str], *, right: Sequence[int] = ()) -> str:
    """Format rows as a table in Markdown; `rows`, `head` and `right` as for `table`."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape_controls(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---:" if i in right else "---" for i in range(len(head))) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def paragraph(text: str, width: int | None = None) -> str:
    """Wrap the lines of a text; the further lines of one that begins with "- " are indented."""
    width = width or terminal_width()
    return "\n".join(
        textwrap.fill(
            escape_controls(line), width, subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False, break_on_hyphens=False,
        )
        for line in text.split("\n")
    )  # fmt: skip


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_width, column)) for column in zip(*lines)]


def common_start(names: Collection[str]) -> str:
    """Return what all names begin with, up to the end of a part of a name; empty where that is short."""
    if len(set(names)) < 2:
        return ""
    first, last = min(names), max(names)  # what these two begin with, all begin with
    start = first[: next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))]
    start = start[: max(start.rfind(c) for c in "-/: ") + 1]
    return start if len(start) >= _NARROWEST else ""


def _shrink(widths: list[int], wrap: Sequence[int], most: int, heads: Sequence[int]) -> None:
    """Take from the widest column that may be wrapped until the table fits."""
    least = {i: max(_NARROWEST, heads[i]) for i in wrap}
    while sum(widths) + len(_GAP) * (len(widths) - 1) > most:
        candidates = [i for i in wrap if widths[i] > least[i]]
        if not candidates:
            return
        widths[max(candidates, key=widths.__getitem__)] -= 1


def _wrapped(cell: str, width: int) -> list[str]:
    """Break a cell into lines, behind a hyphen, a space and the like where there is one."""
    lines = [""]
    for piece in _PLACES.findall(cell):
        if lines[-1] and _width(lines[-1]) + _width(piece.rstrip()) > width:
            lines.append("")
        while _width(piece.rstrip()) > width:
            lines[-1] = piece[:width]
            lines.append("")
            piece = piece[width:]
        lines[-1] += piece
    return [line.rstrip() for line in lines if line] or [""]


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space


def _width(text: str) -> int:
    """Return the columns that a text takes: two for each wide character of Chinese, Japanese and Korean."""
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def escape_controls(text: str) -> str:
    """Return a text in which characters that a terminal does not print, such as escape codes, are written out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
