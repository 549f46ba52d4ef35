"""The thread in which the explorer computes, one task after another; each can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Going = Callable[[], bool]
"""Whether the task should go on."""
Work = Callable[[Going], object]


class Worker:
    """Runs tasks in order, in one thread.

    Args:
        stoppable: called with whether `stop` would stop anything, whenever that may have changed.
        stopped: called with the name of a task that was stopped before it began.
        failed: called with the error that a task raised.
    """

    def __init__(
        self,
        stoppable: Callable[[bool], None],
        stopped: Callable[[str], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._stoppable, self._stopped, self._failed = stoppable, stopped, failed
        self._thread = ThreadPoolExecutor(1, "sfllava-explorer")
        self._last: Future[None] | None = None
        self._lock = threading.Lock()
        self._stops: list[threading.Event] = []  # one for each task that was started and has not ended

    def start(self, name: str, work: Work) -> None:
        """Run a task that can be stopped, also before it begins."""
        stop = threading.Event()
        with self._lock:
            self._stops.append(stop)
            self._stoppable(True)
            self._last = self._thread.submit(self._run, name, work, stop)

    def enqueue(self, act: Callable[[], None]) -> None:
        """Run something short that cannot be stopped."""
        with self._lock:
            self._last = self._thread.submit(self._guard, act)

    def stop(self) -> None:
        """Stop all tasks started so far, running or waiting."""
        with self._lock:
            for stop in self._stops:
                stop.set()

    @property
    def busy(self) -> bool:
        """Whether a task runs or waits."""
        return self._last is not None and not self._last.done()

    def wait(self) -> None:
        """Wait until all tasks have ended."""
        while self._last is not None and not self._last.done():
            self._last.result()

    def _run(self, name: str, work: Work, stop: threading.Event) -> None:
        if stop.is_set():
            self._stopped(name)
        else:
            self._guard(lambda: work(lambda: not stop.is_set()))
        with self._lock:
            self._stops.remove(stop)
            self._stoppable(bool(self._stops))

    def _guard(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            self._failed(error)
