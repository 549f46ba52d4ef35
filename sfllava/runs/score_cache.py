"""Frame scores on disk: computed once for each video and question, and used by all runs.

Each entry is a file of its own, named by a hash of all that it depends on: the contents of the video, the clip, the
candidates, the scorer, and the text. A file is written under a name that no other process uses, then renamed: two
processes may compute an entry twice, but neither reads a half-written one, and a run that was stopped goes on from the
entries that there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.files import RunError

log = logging.getLogger(__name__)
_SPANS, _SPAN_BYTES = 64, 65_536  # of a video that are hashed


def default_folder() -> Path:
    """Return where scores are kept unless a run says otherwise: sfllava/scores in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfllava" / "scores"


class ScoreCache:
    """A folder of arrays. Where it is full, damaged or not writable, a warning says so once, and work goes on.

    Args:
        folder: the folder; it is created when something is written.

    Raises:
        RunError: there is a file in its place.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._warned = self._warned_of_reading = False
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder}: cannot be used as a folder of scores: it is a file")

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of an entry by name; None where there is none, or where it is damaged."""
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged archive raises errors of many kinds
            if not self._warned_of_reading:
                log.warning("%s: cannot be read, computed again: %s", path, " ".join(str(error).split())[:160])
            self._warned_of_reading = True
            return None

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an entry, whole or not at all."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.parent / f".part-{uuid.uuid4().hex}.npz"
            try:
                with part.open("xb") as file:  # readable for whom the umask says, so that users may share a folder
                    np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes no arrays by name
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise
        except OSError as error:
            if not self._warned:
                log.warning(
                    "%s: scores cannot be kept: %s; they are computed again next time",
                    self.folder, error.strerror or error,
                )  # fmt: skip
            self._warned = True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.npz"


def make_key(**facts: Any) -> str:
    """Return the key of an entry: a hash of the facts that it depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def hash_video(path: str | Path) -> str:
    """Hash a video by its size and samples of its bytes; a folder of images by all its files."""
    path, digest = Path(path), hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_dir() else ''}\0{size}\0".encode())
        with file.open("rb") as data:
            if size <= _SPANS * _SPAN_BYTES:
                digest.update(data.read())
                continue
            for i in range(_SPANS):
                data.seek((size - _SPAN_BYTES) * i // (_SPANS - 1))
                digest.update(data.read(_SPAN_BYTES))
    return digest.hexdigest()
