"""Run a notebook with parameters, through papermill, which by itself only warns of a name that the notebook lacks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sfllava import catalogue
from sfllava.disk import RunError, replace_file
from sfllava.types import SfllavaError


def run_notebook(
    notebook: str | Path, out: str | Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True
) -> Path:
    """Execute `notebook`, a path or one of the package's by name, with `parameters`; its outputs go to `out`.

    Raises SfllavaError for a parameter that the notebook does not have, before anything runs, and where a cell
    fails (`out` then shows where).
    """
    import papermill

    notebook, out, parameters = catalogue.find("notebooks", notebook), Path(out), dict(parameters or {})
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
    except OSError as error:
        raise RunError(f"{out}: cannot write: {error.strerror or error}") from error
    return out


def to_html(notebook: str | Path, *, code: bool = True) -> Path:
    """An executed notebook as HTML beside it, with or without its code."""
    from nbconvert import HTMLExporter

    notebook = Path(notebook)
    text, _ = HTMLExporter(exclude_input=not code, exclude_input_prompt=True).from_filename(str(notebook))
    out = notebook.with_suffix(".html")
    replace_file(out, text.encode())
    return out


def grid(parameters: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of values, the last name changing fastest."""
    return [dict(zip(parameters, values)) for values in itertools.product(*parameters.values())]


def run_batch(
    notebook: str | Path,
    out: str | Path,
    runs: Sequence[Mapping[str, Any]],
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
) -> dict[str, str]:
    """Execute a notebook once for each of `runs` (its parameters), `jobs` at a time, each in a process of its own.

    Each has a folder of its own under `out`, named after its parameters: the executed notebook, log.txt, and, where
    the notebook has a parameter `out`, the run folder. devices: of each job in turn, as CUDA_VISIBLE_DEVICES has
    them. Called again, jobs go on or are done at once, as their notebooks do. Folder -> "done", or what failed.
    """
    if jobs < 1 or not runs:
        raise SfllavaError(f"needed at least one job at a time and one run, got {jobs} and {len(runs)}")
    import papermill

    path = catalogue.find("notebooks", notebook)
    has_out = "out" in papermill.inspect_notebook(str(path))
    varied = [name for name in runs[0] if len({json.dumps(run[name]) for run in runs}) > 1]
    names = ["-".join(_slug(run[name]) for name in varied) or path.stem for run in runs]
    if len(set(names)) < len(names):
        raise SfllavaError(f"needed runs that differ in their parameters, got {', '.join(names)}")
    free = list(devices)

    def one(name: str, parameters: Mapping[str, Any]) -> str:
        folder = Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        given = {**parameters, **({"out": str(folder / "run")} if has_out and "out" not in parameters else {})}
        pairs = [part for key, value in given.items() for part in ("-p", f"{key}={json.dumps(value)}")]
        device = free.pop() if free else None
        env = dict(os.environ) if device is None else os.environ | {"CUDA_VISIBLE_DEVICES": device}
        command = [sys.executable, "-m", "sfllava.cli", "notebook", str(path), str(folder / path.name), *pairs]
        try:
            with (folder / "log.txt").open("ab") as log:
                code = subprocess.run(command, stdout=log, stderr=log, env=env).returncode
        finally:
            if device is not None:
                free.append(device)
        if code:
            lines = (folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()
            return f"failed: {lines[-1] if lines else f'exit status {code}'}"
        return "done"

    if devices and len(devices) < jobs:
        raise SfllavaError(f"needed a device for each of {jobs} jobs, got {', '.join(devices)}")
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(names, pool.map(one, names, runs)))


def _slug(value: Any) -> str:
    text = str(Path(value).name if isinstance(value, str) and value else value)
    return "".join(c if c.isalnum() or c in "._" else "_" for c in text)[:60]
