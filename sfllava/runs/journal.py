"""Rows on disk: JSON lines that one process at a time appends, whole and synced.

A process that is killed at any moment leaves at most one half-written last line, which the next one cuts off.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sfllava.files import Row, RunError, as_line, partial_path, read_lines, write_file

log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 0.2  # `is_held` takes a free lock for a moment


class Journal:
    """A file of rows, open for its one writer; use as a context manager, under a lock (`hold`).

    Args:
        path: The file; it is created where there is none.
        read: Reads and checks all rows of the file.
    """

    def __init__(self, path: Path, read: Callable[[Path], Iterator[Row]]) -> None:
        self.path, self._read = path, read

    def __enter__(self) -> Journal:
        partial_path(self.path).unlink(missing_ok=True)  # left by a `replace` that was killed
        self._cut_off_half_line()
        for _ in self.rows():  # reading checks each
            pass
        self._file = self.path.open("ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of writing."""
        return self._read(self.path)

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows and sync them to the disk.

        Raises:
            RunError: The rows could not be written, for example to a full disk. The file is as it was before.
        """
        data = b"".join(map(as_line, rows))
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise RunError(
                f"{self.path}: cannot write: {error.strerror}; earlier rows are kept, and the same command goes on "
                "from there"
            ) from error

    def replace(self, rows: Iterable[Row]) -> None:
        """Replace all rows at once; a process killed meanwhile leaves the old ones."""
        self._file.close()
        try:
            write_file(self.path, b"".join(map(as_line, rows)))
        finally:
            self._file = self.path.open("ab", buffering=0)

    def _cut_off_half_line(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            log.warning("%s: cut off a half-written last line of %d bytes", self.path, len(data) - end)
            with self.path.open("r+b") as file:
                file.truncate(end)


@contextlib.contextmanager
def usable_files() -> Iterator[None]:
    """Turn an OSError, as of a folder that cannot be written, into a RunError that names the file."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be used: {error.strerror}") from error


@contextlib.contextmanager
def hold(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock file for this process alone; the system releases it however the process ends.

    Args:
        lock: The lock file; it stays when the lock is released.
        busy: The error message where another process holds it.

    Raises:
        RunError: Another process holds the lock.
    """
    # not tied to the thread: a notebook may enter and leave in different ones
    held = FileLock(lock, timeout=_PATIENCE_SECONDS, poll_interval=0.02, thread_local=False)
    try:
        held.acquire()
    except Timeout as error:
        raise RunError(busy) from error
    try:
        yield
    finally:
        held.release()


def is_held(lock: Path) -> bool:
    """Return whether another process holds a lock file, as far as this process may know."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that only others may write
        return False


def read_rows_once(
    path: Path, what: str, needed: Mapping[str, Any], key: Callable[[Row], tuple[str, ...]], again: str
) -> Iterator[Row]:
    """The rows of a journal, each key once; a half-written last line is skipped.

    Args:
        path: The file; without one there are no rows.
        what: What a line must be, for error messages.
        needed: Fields and their types, as `files.read_lines` takes them.
        key: The part of a row that is unique in the file.
        again: How an error names a second row of one key, with `{}` for each part of the key.

    Raises:
        RunError: A line is no such row, or repeats a key; the message has the line's number.
    """
    seen: set[int] = set()  # hashes: a set of a million tuples of strings would take more memory than the rest
    for number, row in enumerate(read_lines(path, what, needed), 1):
        own = key(row)
        if (digest := hash(own)) in seen:
            raise RunError(f"{path}, line {number}: {again.format(*own)}")
        seen.add(digest)
        yield row
