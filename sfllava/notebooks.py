"""Run a notebook with parameters, through papermill, which by itself only warns of a name that the notebook lacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfllava.types import SfllavaError


def run_notebook(
    notebook: str | Path, out: str | Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True
) -> Path:
    """Execute `notebook` with `parameters` and write it, with its outputs, to `out`.

    Raises SfllavaError for a parameter that the notebook does not have, before anything runs, and where a cell
    fails (`out` then shows where).
    """
    import papermill

    notebook, out, parameters = Path(notebook), Path(out), dict(parameters or {})
    if not notebook.is_file():
        raise SfllavaError(f"{notebook}: no such notebook")
    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # nbformat has several
        raise SfllavaError(f"{notebook}: not a notebook: {type(error).__name__}") from error
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise SfllavaError(f"{notebook}: no parameter is called {', '.join(unknown)}; there are {', '.join(known)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(str(notebook), str(out), parameters, progress_bar=progress, log_output=False)
    except papermill.PapermillExecutionError as error:
        raise SfllavaError(f"{out}: cell {error.exec_count} failed: {error.ename}: {error.evalue}") from error
    return out
