"""Run notebooks with parameters, using papermill, and read those parameters inside them.

papermill only warns about a parameter that the notebook does not have; here it is an error.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
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
from sfllava.catalogue import unknown_name
from sfllava.files import RunError
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.selection.selectors import UNIFORM
from sfllava.settings import Setting
from sfllava.types import SfllavaError

# 1) read parameters inside a notebook


def values_of(value: Any, name: str, kind: type[str] | type[int] = str, *, commas: bool = True) -> list[Any]:
    """Return a notebook parameter as a list.

    Args:
        value: In any of the forms 8, "8", [8, 16], "[8, 16]" or "8,16". Text in brackets is read as JSON.
        name: The parameter's name, for errors.
        kind: The type of each value.
        commas: Whether commas separate values in other text.

    Returns:
        The values, at least one.

    Raises:
        SfllavaError: There is no value, or one is not of that kind.
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


def settings_of(frames: Any, aggregation: Any, selection: Any = UNIFORM) -> list[Setting]:
    """Return a setting for every combination of the notebook parameters frames, aggregation and selection."""
    names, chosen = values_of(aggregation, "aggregation"), values_of(selection, "selection", commas=False)
    return [
        Setting(n, name, selection=one) for n in values_of(frames, "frames", int) for name in names for one in chosen
    ]


def source_of(scorer: str) -> SelectionSource:
    """Return what frames are chosen with, by the notebook parameter scorer, where "" means none."""
    return SelectionSource(str(scorer) or None)


def run_paths(runs: Any) -> list[str]:
    """Return the run folders in a notebook parameter; an existing path is one folder, even if it contains commas."""
    return [str(runs)] if isinstance(runs, str | Path) and Path(runs).exists() else values_of(runs, "runs")


def load_or_render(name: str, questions: str = "", videos: str = "", root: str = "") -> Benchmark:
    """Load a benchmark from notebook parameters, where "" means none; without any, render ShapesQA to `samples`."""
    if name == "shapesqa" and not (questions or videos or root):
        root = str(_render_samples())
    return find_benchmark(name, questions or None, videos or None, root or None)


def sample_video() -> str:
    """Return the path of a small rendered video in the folder `samples`."""
    return str(min((_render_samples() / "videos").glob("*.mp4")))


def _render_samples() -> Path:
    folder = Path("samples")
    if not (folder / "shapesqa_choice.csv").exists():
        # rendered elsewhere and renamed, since several notebooks may do this at the same time
        with tempfile.TemporaryDirectory(prefix=".samples-", dir=".") as part:
            made = write_shapesqa(Path(part) / "samples", videos=4)
            try:
                made.rename(folder)
            except OSError as error:
                if not (folder / "shapesqa_choice.csv").exists():
                    raise RunError(f"{folder}: cannot render samples into it: {error.strerror}") from error
    return folder


# 2) run one notebook


def run_notebook(
    notebook: str | Path, out: str | Path, parameters: Mapping[str, Any] | None = None, *, progress: bool = True
) -> Path:
    """Execute a notebook with parameters.

    Args:
        notebook: A path, or the name of one in the package.
        out: The executed notebook to write.
        parameters: Values by name; the notebook's own where not given.
        progress: Whether to show a progress bar.

    Returns:
        `out`.

    Raises:
        SfllavaError: The notebook has no such parameter, before anything runs; or a cell failed, and `out` shows where.
    """
    import papermill

    notebook, out, parameters = catalogue.find("notebooks", notebook), Path(out), dict(parameters or {})
    _check_parameters(notebook, parameters.keys())
    out.parent.mkdir(parents=True, exist_ok=True)
    # each kernel would otherwise warn in the terminal that a debugger may miss breakpoints
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    try:
        papermill.execute_notebook(
            str(notebook), str(out), parameters, progress_bar=progress, log_output=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no warnings of the kernel about its own transport
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise SfllavaError(f"{out}: cell {error.exec_count} failed: {error.ename}: {error.evalue}") from error
    except OSError as error:
        raise RunError(f"{out}: cannot write: {error.strerror or error}") from error
    return out


def _check_parameters(notebook: Path, given: Iterable[str]) -> list[str]:
    """Return the names of a notebook's parameters, or raise if a given one is not among them."""
    import papermill

    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # nbformat raises several
        raise SfllavaError(f"{notebook}: not a notebook: {type(error).__name__}") from error
    if unknown := sorted(set(given) - known.keys()):
        raise SfllavaError(f"{notebook}: {unknown_name('parameter', unknown[0], known)}")
    return list(known)


# 3) run a notebook for many parameters


def grid(parameters: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return all combinations of values, the last name changing fastest."""
    return [dict(zip(parameters, values)) for values in itertools.product(*parameters.values())]


def run_batch(
    notebook: str | Path,
    out: str | Path,
    runs: Sequence[Mapping[str, Any]],
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
) -> dict[str, str]:
    """Execute a notebook once for each set of parameters, each in its own process and folder.

    A folder is named after its parameters. It has the executed notebook, log.txt, and, if the notebook has a parameter
    `out`, the run folder. Called again, jobs continue or finish at once, as their notebooks do.

    Args:
        notebook: A path, or the name of one in the package.
        out: Folder for the folders.
        runs: The parameters of each execution.
        jobs: Executions at a time.
        devices: The GPU of each of these jobs, as in CUDA_VISIBLE_DEVICES; empty for all GPUs.

    Returns:
        Folder name -> "done", or what failed.

    Raises:
        SfllavaError: The arguments do not go together; nothing has run then.
    """
    if jobs < 1 or not runs:
        raise SfllavaError(f"needed at least one job at a time and one run, got {jobs} and {len(runs)}")
    path = catalogue.find("notebooks", notebook)
    known = _check_parameters(path, {name for run in runs for name in run})
    if devices and len(devices) < jobs:
        raise SfllavaError(f"needed a device for each of {jobs} jobs, got {', '.join(devices)}")
    folders = [Path(out) / name for name in _folder_names(path, runs)]
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for device in devices or [None] * jobs:
        free.put(device)

    def execute(folder: Path, parameters: Mapping[str, Any]) -> str:
        own = {"out": str(folder / "run")} if "out" in known else {}
        device = free.get()
        try:
            return _execute(path, folder, own | dict(parameters), device)
        finally:
            free.put(device)

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip((folder.name for folder in folders), pool.map(execute, folders, runs)))


def _folder_names(notebook: Path, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a folder name for each run, made of the parameters that differ between runs."""
    outs = [str(run["out"]) for run in runs if "out" in run]
    if len(set(outs)) < len(outs):
        raise SfllavaError(f"needed a folder of its own for each run, got out = {outs[0]} for several; do not set out")
    given = dict.fromkeys(name for run in runs for name in run)
    varied = [name for name in given if len({json.dumps(run.get(name)) for run in runs}) > 1]
    names = ["-".join(_slug(run.get(name)) for name in varied) or notebook.stem for run in runs]
    if len(set(names)) < len(names):
        raise SfllavaError(f"needed runs that differ in their parameters, got {', '.join(names)}")
    return names


def _execute(notebook: Path, folder: Path, parameters: Mapping[str, Any], device: str | None) -> str:
    """Execute a notebook in a process, and return "done" or what failed."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [part for name, value in parameters.items() for part in ("-p", f"{name}={json.dumps(value)}")]
    command = [sys.executable, "-m", "sfllava.cli", "notebook", str(notebook), str(folder / notebook.name), *pairs]
    environment = dict(os.environ) if device is None else os.environ | {"CUDA_VISIBLE_DEVICES": device}
    with (folder / "log.txt").open("ab") as log:
        status = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    if not status:
        return "done"
    lines = (folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()
    return f"failed: {lines[-1] if lines else f'exit status {status}'}"


def _slug(value: Any) -> str:
    text = str(Path(value).name if isinstance(value, str) and value else value)
    return "".join(c if c.isalnum() or c in "._" else "_" for c in text)[:60]
