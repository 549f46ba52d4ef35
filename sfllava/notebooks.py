"""Run a notebook with parameters, through papermill, and what notebooks read their parameters with.

papermill alone only warns of a parameter that the notebook lacks.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sfllava import catalogue
from sfllava.benchmarks import Benchmark, find_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.files import RunError, write_file
from sfllava.settings import Setting
from sfllava.types import SfllavaError


def values_of(value: Any, name: str, kind: type[str] | type[int] = str, *, commas: bool = True) -> list[Any]:
    """A parameter of a notebook as a list, in whatever form it was given: 8, "8", [8, 16], "[8, 16]", "8,16".

    A text in brackets is read as JSON. commas: whether other texts with commas are several. kind: of each value.
    Raises SfllavaError, which names the parameter.
    """
    wanted = "whole numbers, such as 8, [8, 16] or 8,16" if kind is int else "a text, or a JSON list of texts"
    found = value
    if isinstance(value, str):
        found = _read_json(value) if value.lstrip().startswith("[") else None
        if found is None:
            found = [part.strip() for part in value.split(",")] if commas else [value]
    values = list(found) if isinstance(found, list | tuple) else [found]
    if kind is int:
        values = [int(v) if isinstance(v, str) and v.strip().isdecimal() else v for v in values]
    else:
        values = [str(v) if isinstance(v, int | float | Path) and not isinstance(v, bool) else v for v in values]
    if not values or any(not isinstance(v, kind) or isinstance(v, bool) or v == "" for v in values):
        raise SfllavaError(f"{name}: needed {wanted}, got {value!r}")
    return values


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def settings_of(frames: Any, aggregation: Any) -> list[Setting]:
    """The settings of a notebook's parameters: every pair of frames and aggregation, each one or several."""
    names = values_of(aggregation, "aggregation")
    return [Setting(n, name) for n in values_of(frames, "frames", int) for name in names]


def run_paths(runs: Any) -> list[str]:
    """The run folders of a notebook's parameter: a path that exists is one, whatever commas it has."""
    return [str(runs)] if isinstance(runs, str | Path) and Path(runs).exists() else values_of(runs, "runs")


def load_or_render(name: str, questions: str = "", videos: str = "", root: str = "") -> Benchmark:
    """A benchmark by a notebook's parameters, where "" is none; ShapesQA is rendered into `samples` without them."""
    if name == "shapesqa" and not (questions or videos or root):
        root = str(_render())
    return find_benchmark(name, questions or None, videos or None, root or None)


def sample_video() -> str:
    """A small rendered video, in the folder `samples`."""
    return str(min((_render() / "videos").glob("*.mp4")))


def _render() -> Path:
    folder = Path("samples")
    if not (folder / "shapesqa_choice.csv").exists():
        # elsewhere first, since a batch of notebooks may do this at the same time
        with tempfile.TemporaryDirectory(prefix=".samples-", dir=".") as part:
            made = write_shapesqa(Path(part) / "samples", videos=4)
            try:
                made.rename(folder)
            except OSError as error:
                if not (folder / "shapesqa_choice.csv").exists():
                    raise RunError(f"{folder}: cannot render samples into it: {error.strerror}") from error
    return folder


def run_notebook(
    notebook: str | Path, out: str | Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True
) -> Path:
    """Execute `notebook`, a path or one of the package's by name, with `parameters`; its outputs go to `out`.

    Raises SfllavaError for a parameter that the notebook does not have, before anything runs, and where a cell
    fails (`out` then shows where).
    """
    import papermill

    notebook, out, parameters = catalogue.find("notebooks", notebook), Path(out), dict(parameters or {})
    _parameters(notebook, parameters.keys())
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(str(notebook), str(out), parameters, progress_bar=progress, log_output=False)
    except papermill.PapermillExecutionError as error:
        raise SfllavaError(f"{out}: cell {error.exec_count} failed: {error.ename}: {error.evalue}") from error
    except OSError as error:
        raise RunError(f"{out}: cannot write: {error.strerror or error}") from error
    return out


def _parameters(notebook: Path, given: Iterable[str]) -> list[str]:
    """The names of a notebook's parameters; SfllavaError where one that is given is none of them."""
    import papermill

    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # nbformat has several
        raise SfllavaError(f"{notebook}: not a notebook: {type(error).__name__}") from error
    if unknown := sorted(set(given) - known.keys()):
        raise SfllavaError(f"{notebook}: no parameter is called {', '.join(unknown)}; there are {', '.join(known)}")
    return list(known)


def to_html(notebook: str | Path, *, code: bool = True) -> Path:
    """An executed notebook as HTML beside it, with or without its code."""
    from nbconvert import HTMLExporter

    notebook = Path(notebook)
    text, _ = HTMLExporter(exclude_input=not code, exclude_input_prompt=True).from_filename(str(notebook))
    out = notebook.with_suffix(".html")
    write_file(out, text.encode())
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
    path = catalogue.find("notebooks", notebook)
    known = _parameters(path, {name for run in runs for name in run})
    if devices and len(devices) < jobs:
        raise SfllavaError(f"needed a device for each of {jobs} jobs, got {', '.join(devices)}")
    outs = [str(run["out"]) for run in runs if "out" in run]
    if len(set(outs)) < len(outs):
        raise SfllavaError(f"needed a folder of its own for each run, got out = {outs[0]} for several; do not set out")
    given = dict.fromkeys(name for run in runs for name in run)
    varied = [name for name in given if len({json.dumps(run.get(name)) for run in runs}) > 1]
    names = ["-".join(_slug(run.get(name)) for name in varied) or path.stem for run in runs]
    if len(set(names)) < len(names):
        raise SfllavaError(f"needed runs that differ in their parameters, got {', '.join(names)}")
    free = list(devices)

    def one(name: str, parameters: Mapping[str, Any]) -> str:
        folder = Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        given = {**parameters, **({"out": str(folder / "run")} if "out" in known and "out" not in parameters else {})}
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

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(names, pool.map(one, names, runs)))


def _slug(value: Any) -> str:
    text = str(Path(value).name if isinstance(value, str) and value else value)
    return "".join(c if c.isalnum() or c in "._" else "_" for c in text)[:60]
