"""The thread beside the kernel's in which the explorer computes, one thing after another; each can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Going = Callable[[], bool]
"""Whether what was started is still wanted"""
Work = Callable[[Going], None]


class Worker:
    """Does what it is given in order.

    stoppable(yes): called whenever there is, or is no longer, something that `stop` would stop. stopped(name): called
    in place of work that was stopped before it began. failed(error): called with what work raises.
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
        self._stops: list[threading.Event] = []  # of all that was started and has not ended, each its own

    def start(self, name: str, work: Work) -> None:
        """Do work that can be stopped, also while it waits for its turn."""
        stop = threading.Event()
        with self._lock:
            self._stops.append(stop)
            self._stoppable(True)
            self._last = self._thread.submit(self._run, name, work, stop)

    def enqueue(self, act: Callable[[], None]) -> None:
        """Do something short, which nothing stops."""
        with self._lock:
            self._last = self._thread.submit(self._guard, act)

    def stop(self) -> None:
        """Stop what was started so far, running or waiting."""
        with self._lock:
            for stop in self._stops:
                stop.set()

    @property
    def busy(self) -> bool:
        return self._last is not None and not self._last.done()

    def wait(self) -> None:
        """Until nothing is under way."""
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

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._failed(error)
