"""Send what a run found to an experiment tracker: scores with intervals, settings, costs, figures and versions.

A module with a `TRACKER` is a tracker of that name. What is sent is listed in `reports/record.py`: never the texts of
questions and answers or the names of videos, unless examples are asked for, and never keys or the folders of a machine.
No module here imports pandas or a client at its top: what is missing is found before anything needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import tempfile
from functools import partial
from pathlib import Path

from sfllava.catalogue import unknown_name
from sfllava.display.private import without_credentials
from sfllava.files import Row, read_object, write_json
from sfllava.reports.tracking.base import Tracker
from sfllava.types import SfllavaError

IDS = "tracking.json"
"""The file in a run folder with the ids that trackers gave the run, so that a later call goes on there."""
_NEEDED = ("pandas", "scipy", "seaborn")  # for intervals and figures


def tracker_names() -> list[str]:
    """Return the names of all trackers."""
    return [name for name in (module.name for module in pkgutil.iter_modules(__path__)) if _load(name)]


def _load(name: str) -> Tracker | None:
    return getattr(importlib.import_module(f"{__name__}.{name}"), "TRACKER", None)


def find_tracker(text: str) -> tuple[str, Tracker, str]:
    """Return the name of a tracker, the tracker, and where it sends to.

    Args:
        text: The name, or the name and a place, such as "wandb:my-team/my-project" or "tensorboard:logs".

    Raises:
        SfllavaError: There is no such tracker, or its package is not installed.
    """
    name, _, where = text.partition(":")
    known = tracker_names()
    tracker = _load(name) if name in known else None
    if tracker is None:
        raise SfllavaError(unknown_name("tracker", name, known))
    missing = [package for package in (tracker.package, *_NEEDED) if importlib.util.find_spec(package) is None]
    if missing:
        raise SfllavaError(f"tracker {name} needs {' and '.join(missing)}: pip install 'sfllava[track]'")
    return name, tracker, where


def track(run: str | Path, tracker: str, *, judge: str | None = None, examples: bool = False) -> str:
    """Send what is in a run folder to a tracker; called again, it updates the same run there, where the client can.

    Args:
        run: The run folder; it may be unfinished.
        tracker: "wandb", "mlflow" or "tensorboard", with a place after a colon: a project or ENTITY/PROJECT; a tracking
            URI or a folder; a folder.
        judge: Also send the scores by the verdicts of this judge.
        examples: Also send questions, answers and the names of videos, of the first 1,000 answers.

    Returns:
        Where the run is now, in one line.

    Raises:
        SfllavaError: There is no such tracker, its package is missing, or the run cannot be read.
    """
    from sfllava.reports.record import make_record

    name, chosen, where = find_tracker(tracker)
    run = Path(run)
    file, place = run / IDS, without_credentials(where)
    ids = read_object(file, "the ids of a run in trackers", {}) if file.exists() else {}
    known = ids.get(name, {}).get(place, {}) if isinstance(ids.get(name), dict) else {}
    with tempfile.TemporaryDirectory() as figures:
        record = make_record(run, judge, examples, Path(figures))
        remember = partial(_remember, file, ids, name, place)
        shown = chosen.send(record, where, known if isinstance(known, dict) else {}, run, remember)
    return f"{name}: {shown}"


def _remember(file: Path, ids: Row, name: str, place: str, new: Row) -> None:
    """Keep the ids of a run in a tracker."""
    of_tracker = ids.get(name) if isinstance(ids.get(name), dict) else {}
    write_json(file, ids | {name: {**(of_tracker or {}), place: new}})
