"""Export tables to files."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sfllava.files import as_csv, atomic_write
from sfllava.types import SfllavaError


def export(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table to a file.

    Args:
        table: The table.
        path: A file name that ends in .csv, .parquet or .tex (booktabs, with special characters escaped).

    Returns:
        The path.

    Raises:
        SfllavaError: The file name has another suffix.
    """
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
            part.write_text(style.to_latex(hrules=True, column_format=_column_alignment(table)), encoding="utf-8")
        else:
            raise SfllavaError(f"{path}: needed a file name that ends in .csv, .parquet or .tex")
    return path


def _column_alignment(table: pd.DataFrame) -> str:
    return "".join("r" if pd.api.types.is_numeric_dtype(kind) else "l" for kind in table.dtypes)
