"""A line on stderr that says what a command does while it takes long."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def working(what: str, silent: bool = False) -> Iterator[None]:
    """Print what is being done; on a terminal, with the seconds so far, until it is done.

    Args:
        what: What is done, such as "loading tiny".
        silent: Print nothing.
    """
    if silent:
        yield
        return
    if not sys.stderr.isatty():
        print(f"{what} ...", file=sys.stderr, flush=True)
        yield
        return
    room = shutil.get_terminal_size().columns - len(" ... 1,000.0 s")
    what = what if len(what) <= room else f"{what[: room - 3]}..."  # a second line could not be written over
    done, start = threading.Event(), time.monotonic()

    def count() -> None:
        while not done.wait(0.5):
            print(f"\r{what} ... {time.monotonic() - start:,.0f} s", end="", file=sys.stderr, flush=True)

    print(f"{what} ...", end="", file=sys.stderr, flush=True)
    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print(f"\r{what} ... {time.monotonic() - start:,.1f} s", file=sys.stderr, flush=True)
