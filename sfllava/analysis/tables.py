"""Exporting tables."""

# what a pandas expression gives is a union of half a dozen types to a checker
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sfllava.analysis.compare import _alignment
from sfllava.files import as_csv, atomic_write
from sfllava.types import SfllavaError


def export(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as .csv, .parquet or .tex (booktabs); LaTeX's own characters are escaped."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        if path.suffix == ".csv":
            part.write_text(as_csv(table), encoding="utf-8")
        elif path.suffix == ".parquet":
            table.to_parquet(part, index=False)
        elif path.suffix == ".tex":
            style = table.style.hide(axis="index").format(precision=1, escape="latex", na_rep="--")
            style = style.format_index(escape="latex", axis=1)
            part.write_text(style.to_latex(hrules=True, column_format=_alignment(table)), encoding="utf-8")
        else:
            raise SfllavaError(f"{path}: needed a name that ends in .csv, .parquet or .tex")
    return path
