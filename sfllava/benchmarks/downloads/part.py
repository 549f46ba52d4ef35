"""The part of a file that has arrived, which stays when a download stops: NAME.part, and what it is a part of."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from sfllava.benchmarks.downloads.addresses import DownloadError
from sfllava.files import file_sha256, read_object, write_json
from sfllava.types import SfllavaError


class Part:
    """The part of a file that has arrived.

    Args:
        path: where the whole file will be.
        keep_record: note beside the whole file that it was fetched (NAME.fetched.json), for `was_fetched`.

    Attributes:
        restarts: how often bytes that had arrived were removed, so that the download starts over.
    """

    def __init__(self, path: Path, keep_record: bool = False) -> None:
        self.whole = path
        self._keep_record = keep_record
        self.restarts = 0
        self.path = path.with_name(f"{path.name}.part")
        self._about = path.with_name(f"{path.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def validator(self) -> str:
        """What the server called this version of the file (a strong ETag, or its date); empty if unknown."""
        with contextlib.suppress(SfllavaError):
            return read_object(self._about, "a note about a part", {"validator": str})["validator"]
        return ""

    def begin(self, validator: str) -> None:
        """Forget what has arrived, and note what the server calls the version of the file that follows."""
        self.clear()
        if validator:
            write_json(self._about, {"validator": validator})

    def open(self) -> BinaryIO:
        """Open for appending. Nothing stays in this process's memory, so that a killed download keeps every byte."""
        if self.path.is_symlink():
            raise DownloadError(f"{self.path}: is a link; needed a file of an earlier download, or none")
        return self.path.open("ab", buffering=0)

    def clear(self) -> None:
        """Remove the part."""
        self.restarts += self.size > 0
        for path in (self.path, self._about):
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Make the part the whole file; a file that is there by now is not replaced."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        if os.path.lexists(self.whole):
            raise DownloadError(f"{self.whole}: appeared during the download; it is left as it is")
        if self._keep_record:
            write_json(record_path(self.whole), {"size": self.size})
        self.path.replace(self.whole)
        self.clear()


def record_path(path: Path) -> Path:
    """Return the path of the note that a file was fetched."""
    return path.with_name(f"{path.name}.fetched.json")


def was_fetched(path: Path) -> bool:
    """Return whether a file is one that was fetched with `keep_record`, and no other that took its place."""
    with contextlib.suppress(SfllavaError):
        size = read_object(record_path(path), "a note about a file that was fetched", {"size": int})["size"]
        return path.stat().st_size == size
    return False


def is_there(path: Path, size: int | None, sha256: str) -> bool:
    """Return whether a file is at its place already.

    Args:
        path: its place.
        size: its size in bytes, None if unknown.
        sha256: its SHA-256, empty if unknown.

    Raises:
        DownloadError: another file, a folder or a broken link is there.
    """
    if not os.path.lexists(path):
        return False
    if not path.is_file():
        raise DownloadError(f"{path}: needed a file or nothing, there is a folder or a broken link: move it away")
    found = path.stat().st_size
    if size is not None and found != size:
        raise DownloadError(f"{path}: another file is there: needed {size:,} bytes, it has {found:,}: move it away")
    if sha256 and (digest := file_sha256(path)) != sha256:
        raise DownloadError(f"{path}: another file is there: needed SHA-256 {sha256}, it has {digest}: move it away")
    return True
