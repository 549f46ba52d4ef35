"""The videos of an explorer: by path, by upload, from the recent ones, or rendered here."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.explorer.widget import ExplorerWidget
from sfllava.sampler import VIDEO_SUFFIXES
from sfllava.types import SfllavaError

PLAYED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
MOST_PLAYED_BYTES = 16 << 20  # what is sent to the browser at once


class Videos:
    """Files for the explorer. Those that could be opened are in `widget.recent`."""

    def __init__(self, widget: ExplorerWidget) -> None:
        self._face, self._uploads = widget, 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def render(self) -> str:
        """Render four sample videos, and return the path of the first."""
        videos = sorted((write_shapesqa(self._scratch(), videos=4) / "videos").glob("*.mp4"))
        for path in videos:
            self.remember(str(path))
        return str(videos[0])

    def upload(self, name: str, content: bytes) -> str:
        """Keep an uploaded file, and return its path.

        Raises:
            SfllavaError: its name is not that of a video.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            raise SfllavaError(f"{name}: needed a video ({' '.join(VIDEO_SUFFIXES)})")
        self._uploads += 1  # a name of our own: that of the file could lead out of the folder
        path = self._scratch() / f"upload-{self._uploads}{suffix}"
        path.write_bytes(content)
        return str(path)

    def remember(self, path: str) -> None:
        """Add a video that can be opened to the recent ones."""
        if path not in {known["path"] for known in self._face.recent}:
            self._face.recent = [*self._face.recent, {"path": path, "name": name_of_video(path)}]

    def _scratch(self) -> Path:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="sfllava-")
        return Path(self._folder.name)


def playable(path: str) -> tuple[str, bytes] | None:
    """Return the media type and the bytes of a small video that browsers usually play; otherwise None."""
    file = Path(path)
    kind = PLAYED.get(file.suffix.lower())
    if kind is None or not file.is_file() or file.stat().st_size > MOST_PLAYED_BYTES:
        return None
    return kind, file.read_bytes()


def name_of_video(path: str) -> str:
    """Return the last part of a path."""
    return path.rstrip("/").rsplit("/", 1)[-1]
