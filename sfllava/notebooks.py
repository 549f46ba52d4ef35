"""Run a notebook with parameters, through papermill, which by itself only warns of a name that the notebook lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfllava.types import SfllavaError


def run_notebook(notebook: str | Path, out: str | Path, *, progress: bool = True, **parameters: Any) -> Path:
    """Execute `notebook` with `parameters` and write it, with its outputs, to `out`.

    Raises SfllavaError for a parameter that the notebook does not have, before anything runs; papermill's
    PapermillExecutionError where a cell fails (`out` then shows where).
    """
    import papermill

    notebook, out = Path(notebook), Path(out)
    if not notebook.is_file():
        raise SfllavaError(f"{notebook}: no such notebook")
    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise SfllavaError(f"{notebook}: no parameter is called {', '.join(unknown)}; there are {', '.join(known)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(str(notebook), str(out), parameters, progress_bar=progress, log_output=False)
    return out
