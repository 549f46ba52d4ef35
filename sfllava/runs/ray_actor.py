"""What runs in the processes of a Ray cluster: workers that hold a model each, and the tally of what they died at."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM
    from sfllava.runs.jobs import GenerationOptions, Job
    from sfllava.runs.worker import VideoWorker


TRIES = 3
"""How often a video, or the loading of the model, may kill its worker"""


class VideoMissingError(SfllavaError):
    """A video that the worker's node does not have."""


@dataclass(frozen=True)
class WorkerResult:
    """What a worker sends back: a value, what the package logged on the way (logger, level, text), and from where."""

    value: Any
    logged: list[tuple[str, int, str]]
    node: str
    host: str
    died: list[str] = field(default_factory=list)
    """The processes that a video killed, where they are too many"""


class CrashCounter:
    """Counts what each worker has begun: a worker that begins the same task again has died during it.

    Ray counts its retries too, but with them the failed calls to a node that it does not know to be dead yet.
    """

    def __init__(self) -> None:
        self._begun: dict[str, dict[int, list[str]]] = {}

    def begin(self, what: str, worker: int, process: str) -> list[str]:
        """Record that a worker begins a task, and return the processes that died during it."""
        begun = self._begun.setdefault(what, {})
        begun.setdefault(worker, []).append(process)
        return [process for processes in begun.values() for process in processes[:-1]]

    def end(self, what: str) -> None:
        """Forget a task."""
        self._begun.pop(what, None)


class ModelActor:
    """A worker: a model that is loaded when it is needed, so that one that Ray has replaced can say what is wrong.

    tally: the name of its actor. load: the arguments of `load_model`. folder, path: the driver's working directory and
    sys.path, so that relative paths and a user's own modules mean the same here.
    """

    def __init__(self, number: int, tally: str, load: dict[str, Any], folder: str, path: list[str]) -> None:
        import ray

        self._number, self._tally, self._load = number, ray.get_actor(tally), load
        self._model: VideoLM | None = None
        self._options: GenerationOptions | None = None
        self._worker, self._open = None, contextlib.ExitStack()
        with contextlib.suppress(OSError):
            os.chdir(folder)
        sys.path += [entry for entry in path if entry not in sys.path]
        self._logged = _Logged()
        logger = logging.getLogger("sfllava")
        logger.setLevel(logging.INFO)
        logger.addHandler(self._logged)

    def ready(self, fingerprint: str | None) -> WorkerResult:
        """Load the model if necessary, and return its facts; `fingerprint` is that of the first worker's model."""
        return self._result(self._loaded_model(fingerprint).info)

    def answer(
        self, fingerprint: str, run: int, options: GenerationOptions, job: Job, ahead: list[Job]
    ) -> WorkerResult:
        """Answer a job, while the videos of the next jobs (`ahead`) are decoded."""
        from sfllava.runs.failures import outcome_of_video

        model = self._loaded_model(fingerprint)
        assert job.path is not None
        if not Path(job.path).exists():
            raise VideoMissingError(f"{_host()} has no {job.path}: needed the videos at the same path on all nodes")
        if len(died := self._begin(f"{run} {job.video}")) >= TRIES:
            return self._result(None, died)
        worker = self._worker_for(model, options)
        for upcoming in [job, *ahead]:
            worker.prefetch(upcoming)
        return self._result(outcome_of_video(job.video, list(worker.answer([job]))))

    def call(self, fingerprint: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """`function(model, *args)`."""
        return function(self._loaded_model(fingerprint), *args)

    def _worker_for(self, model: VideoLM, options: GenerationOptions) -> VideoWorker:
        if self._worker is None or options != self._options:
            from sfllava.runs.worker import VideoWorker

            self._open.close()
            self._worker, self._options = self._open.enter_context(VideoWorker(model, options)), options
        return self._worker

    def _loaded_model(self, fingerprint: str | None) -> VideoLM:
        if self._model is None:
            from sfllava.models.load import load_model
            from sfllava.runs.failures import reason_of

            loading = f"load {self._number}"
            if len(died := self._begin(loading)) >= TRIES:
                raise SfllavaError(f"loading the model killed its worker {len(died)} times ({', '.join(died)})")
            try:
                model = load_model(**self._load)
            except (SfllavaError, MemoryError) as error:
                raise SfllavaError(f"a worker on {_host()} cannot load the model: {reason_of(error)}") from error
            finally:
                self._tally.end.remote(loading)
            if fingerprint is not None and model.info.fingerprint != fingerprint:
                raise SfllavaError(f"{_host()}: {model.info.path} is another checkpoint there than on the first node")
            self._model = model
        return self._model

    def _begin(self, what: str) -> list[str]:
        import ray

        return ray.get(self._tally.begin.remote(what, self._number, f"process {os.getpid()} on {_host()}"))

    def _result(self, value: Any, died: list[str] | None = None) -> WorkerResult:
        import ray

        return WorkerResult(value, self._logged.take(), ray.get_runtime_context().get_node_id(), _host(), died or [])


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
