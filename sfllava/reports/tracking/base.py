"""What a tracker is, and what it gets of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfllava.files import Row


@dataclass(frozen=True)
class Record:
    """What a tracker gets of a run.

    Attributes:
        name: The name of the run folder.
        facts: What the run is, by name: benchmark, model, options of generation; no texts of questions.
        versions: Versions of Python and of packages.
        scores: Numbers by name, such as accuracy, or accuracy/SETTING where there are several settings.
        settings: One row per setting, with its scores and costs.
        answered: Answers so far, which is the step of the scores.
        finished: Whether every question has an answer or failed.
        figures: PNG files.
        examples: Rows with questions and answers; empty unless they were asked for.
    """

    name: str
    facts: dict[str, Any]
    versions: dict[str, str]
    scores: dict[str, float]
    settings: list[Row]
    answered: int
    finished: bool
    figures: list[Path] = field(default_factory=list)
    examples: list[Row] = field(default_factory=list)


Remember = Callable[[Row], None]
"""Keeps what finds the run again; called before anything else is sent, so that no failure makes a second run"""


@dataclass(frozen=True)
class Tracker:
    """A client that shows runs.

    Attributes:
        package: The package that it needs, by the name under which it is imported.
        help: What may follow its name after a colon.
        send: (record, place after the colon, ids of an earlier call, run folder, what keeps its ids) -> where the run
            is, for people.
    """

    package: str
    help: str
    send: Callable[[Record, str, Row, Path, Remember], str]


def columns_of(rows: list[Row]) -> list[str]:
    """Return the columns of rows, in the order in which they first appear."""
    return list(dict.fromkeys(column for row in rows for column in row))


@contextlib.contextmanager
def environment(defaults: dict[str, str]) -> Iterator[None]:
    """Set variables for the client that the user has not set, and remove them afterwards."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
