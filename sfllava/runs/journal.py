"""Appending rows to a file that one process holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sfllava.files import Row, RunError, as_line


def append_rows(descriptor: int, path: Path, rows: Iterable[Row]) -> None:
    """Append rows, whole and synced. Where that fails (a full disk) the file is as before, and RunError says so."""
    data = b"".join(map(as_line, rows))
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
            f"{path}: cannot write: {error.strerror}; the rows before are kept, and the same command goes on from there"
        ) from error


def lock(file: Any) -> None:
    """Hold a file for this process alone; OSError where another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
