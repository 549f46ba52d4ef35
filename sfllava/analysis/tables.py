"""Export tables to files."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.display.units import format_operations, format_p, format_seconds
from sfllava.files import as_csv, atomic_write, format_bytes, printable
from sfllava.types import SfllavaError

_HEADS = {
    "name": "setting", "low": "from", "high": "to", "p_holm": "corrected p", "kv_bytes": "keys and values",
    "min_detectable_effect": "detectable difference", "prefill_flops": "prefill", "peak_bytes": "peak memory",
    "seconds_encode": "encode", "seconds_prefill": "prefill time", "seconds": "time", "accuracy_low": "from",
    "accuracy_high": "to",
}  # fmt: skip
_FORMATS: dict[str, Callable[[Any], str]] = {
    "p": format_p, "p_holm": format_p, "prefill_flops": format_operations, "kv_bytes": format_bytes,
    "peak_bytes": format_bytes, "seconds": format_seconds, "seconds_encode": format_seconds,
    "seconds_prefill": format_seconds, "tokens": "{:,.0f}".format,
}  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def export(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table to a file.

    Args:
        table: The table.
        path: A file name that ends in .csv, .parquet or .tex (booktabs, with special characters escaped, heads in words
            and numbers in readable units).

    Returns:
        The path.

    Raises:
        SfllavaError: The file name has another suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        if path.suffix == ".csv":
            whole = {"tokens": table["tokens"].round().astype("Int64")} if _has_numbers(table, "tokens") else {}
            part.write_text(as_csv(table.assign(**whole)), encoding="utf-8")
        elif path.suffix == ".parquet":
            table.to_parquet(part, index=False)
        elif path.suffix == ".tex":
            part.write_text(_as_latex(table), encoding="utf-8")
        else:
            raise SfllavaError(f"{path}: needed a file name that ends in .csv, .parquet or .tex")
    return path


def latex_table(heads: Sequence[str], rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Return a booktabs table.

    Args:
        heads: The heads of its columns, in LaTeX.
        rows: The cells of each row, in LaTeX.
        alignment: l, r or c for each column.
    """
    lines = [" & ".join(cells) + r" \\" for cells in rows]
    head = " & ".join(heads) + r" \\"
    parts = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule"]
    return "\n".join([*parts, r"\end{tabular}", ""])


def latex_escape(text: str) -> str:
    """Return text with every character escaped that LaTeX would read as a command, on one line."""
    return _SPECIAL.sub(lambda match: _LATEX[match[0]], " ".join(printable(text).split()))


def _as_latex(table: pd.DataFrame) -> str:
    columns = [str(name) for name in table.columns]
    heads = [latex_escape(_HEADS.get(name, name.replace("_", " "))) for name in columns]
    rows = [
        [_latex_cell(name, value) for name, value in zip(columns, row)]
        for row in table.astype(object).itertuples(index=False, name=None)
    ]
    numeric = (pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in table.dtypes)
    return latex_table(heads, rows, "".join("r" if number else "l" for number in numeric))


def _latex_cell(column: str, value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return "--"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        shown = _FORMATS.get(column) or ("{:,}".format if isinstance(value, int) else "{:.1f}".format)
        return latex_escape(shown(value).replace("inf", "none"))
    return latex_escape(str(value))


def _has_numbers(table: pd.DataFrame, column: str) -> bool:
    return column in table and pd.api.types.is_numeric_dtype(table[column])
