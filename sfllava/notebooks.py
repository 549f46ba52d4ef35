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

    Raises SfllavaError for a parameter that the notebook does not have, before anything runs; papermill's
    PapermillExecutionError where a cell fails (`out` then shows where).
    """
    import papermill

    notebook, out, parameters = Path(notebook), Path(out), dict(parameters or {})
    if not notebook.is_file():
        raise SfllavaError(f"{notebook}: no such notebook")
    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise SfllavaError(f"{notebook}: no parameter is called {', '.join(unknown)}; there are {', '.join(known)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(str(notebook), str(out), parameters, progress_bar=progress, log_output=False)
    return out
