"""What runs in a worker's process: one model, and the desk at which it answers jobs."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.jobs import Desk, How, Job, reason_of
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext


class VideoNotHere(SfllavaError):
    """A video that the worker's node does not have."""


@dataclass(frozen=True)
class Result:
    """What a worker sends back: a value, what the package logged on the way (logger, level, text), and from where."""

    value: Any
    logged: list[tuple[str, int, str]]
    node: str
    host: str


class Holder:
    """A model that is loaded when it is first needed, so that a replaced worker says what is wrong as any other does.

    load: the arguments of `load_model`. folder, path: the driver's working directory and sys.path, so that relative
    paths and a user's own modules mean the same here.
    """

    def __init__(self, load: dict[str, Any], folder: str, path: list[str]) -> None:
        self._load, self._model, self._desk, self._how = load, None, contextlib.ExitStack(), None
        with contextlib.suppress(OSError):
            os.chdir(folder)
        sys.path += [entry for entry in path if entry not in sys.path]
        self._logged = _Logged()
        logger = logging.getLogger("sfllava")
        logger.setLevel(logging.INFO)
        logger.addHandler(self._logged)

    def ready(self, mark: str | None) -> Result:
        """The model's outline, once it is loaded. mark: the fingerprint that it must have."""
        return self._result(self._held(mark).outline())

    def answer(self, mark: str, how: How, job: Job, ahead: list[Job]) -> Result:
        """The rows of a job, while the videos of those that come next are decoded."""
        model = self._held(mark)
        assert job.path is not None
        if not Path(job.path).exists():
            raise VideoNotHere(f"{_host()} has no {job.path}: needed the videos at the same path on all nodes")
        if how != self._how:
            self._desk.close()
            self._desk, self._how = contextlib.ExitStack(), how
            self._at: Desk = self._desk.enter_context(Desk(model, how))
        for coming in [job, *ahead]:
            self._at.expect(coming)
        return self._result([row for rows in self._at.answer(job) for row in rows])

    def call(self, mark: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """`function(model, *args)`."""
        return function(self._held(mark), *args)

    def _held(self, mark: str | None) -> LlavaNext:
        if self._model is None:
            from sfllava.models.load import load_model

            try:
                model = load_model(**self._load)
            except (SfllavaError, MemoryError) as error:
                raise SfllavaError(f"a worker on {_host()} cannot load the model: {reason_of(error)}") from error
            if mark is not None and model.fingerprint != mark:
                raise SfllavaError(f"{_host()}: {model.path} is another checkpoint there than on the first node")
            self._model = model
        return self._model

    def _result(self, value: Any) -> Result:
        import ray

        return Result(value, self._logged.take(), ray.get_runtime_context().get_node_id(), _host())


class _Logged(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[tuple[str, int, str]]:
        records, self._records = self._records, []
        return records


def _host() -> str:
    import ray

    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
