"""Partially downloaded files: NAME.part, which is kept when a download stops, and NAME.part.json with its version."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from sfllava.benchmarks.downloads.addresses import DownloadError
from sfllava.files import read_object, write_json
from sfllava.types import SfllavaError


class Part:
    """A partially downloaded file.

    Args:
        path: the path of the complete file.
    """

    def __init__(self, path: Path) -> None:
        self.whole = path
        self.path = path.with_name(f"{path.name}.part")
        self._about = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        """The number of bytes downloaded so far."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def validator(self) -> str:
        """The server's identifier for this version of the file (a strong ETag, or its date); empty if unknown."""
        with contextlib.suppress(SfllavaError):
            return read_object(self._about, "a note about a partial file", {"validator": str})["validator"]
        return ""

    def begin(self, validator: str) -> None:
        """Delete the downloaded bytes, and record the server's identifier for the version that follows."""
        self.clear()
        if validator:
            write_json(self._about, {"validator": validator})

    def open(self) -> BinaryIO:
        """Open for appending, without a buffer, so that a killed download loses no bytes."""
        if self.path.is_symlink():
            raise DownloadError(f"{self.path}: is a link; needed the file of an earlier download, or no file")
        return self.path.open("ab", buffering=0)

    def clear(self) -> None:
        """Delete the partial file."""
        for path in (self.path, self._about):
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Rename the partial file to the final name; never replace an existing file."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        if os.path.lexists(self.whole):
            raise DownloadError(f"{self.whole}: appeared during the download; it was not replaced")
        self.path.replace(self.whole)
        self.clear()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_there(path: Path, size: int | None, sha256: str) -> bool:
    """Return whether a file is complete.

    Args:
        path: its path.
        size: its size in bytes; None if unknown.
        sha256: its SHA-256, empty if unknown.

    Raises:
        DownloadError: there is a different file, a folder or a broken link at its path.
    """
    if not os.path.lexists(path):
        return False
    if not path.is_file():
        raise DownloadError(f"{path}: is a folder or a broken link; needed a file or nothing: move it away")
    found = path.stat().st_size
    if size is not None and found != size:
        raise DownloadError(f"{path}: is a different file: needed {size:,} bytes, it has {found:,}: move it away")
    if sha256 and (digest := file_sha256(path)) != sha256:
        raise DownloadError(f"{path}: is a different file: needed SHA-256 {sha256}, it has {digest}: move it away")
    return True
