"""What a benchmark is, finding its files, and finding its videos."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sfllava.benchmarks.files import BenchmarkError, read_questions
from sfllava.sampler import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from sfllava.types import Question, SfllavaError, Task

_NOT_BENCHMARKS = {"base", "files"}


@dataclass(frozen=True)
class Spec:
    """One benchmark: `questions` and `videos` are where its files lie under a root, the first that exists counts."""

    name: str
    task: Task
    questions: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    question_count: int | None = None
    video_count: int | None = None
    read: Callable[[Path, str, Task], tuple[list[Question], list[Path]]] = read_questions
    """(file or folder, name, task) -> (questions, the files that were read)."""


@dataclass
class Benchmark:
    """Loaded questions, and where their videos are."""

    spec: Spec
    questions: list[Question]
    videos_dir: Path | None
    files: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the question files."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def find_video(self, name: str) -> Path:
        """The file or frame folder of a video name: nested or not, with or without suffix and `v_` prefix."""
        if self.videos_dir is None:
            raise BenchmarkError(f"{name}: no folder of videos was given")
        if not hasattr(self, "_index"):
            self._index = _index(self.videos_dir)
        stem = _stem(name)
        for wanted in (stem, f"v_{stem}", stem.removeprefix("v_")):
            if wanted in self._index:
                return self._index[wanted]
        raise BenchmarkError(f"{name}: no such video under {self.videos_dir}")


def load_benchmark(
    name: str,
    questions: str | Path | None = None,
    videos: str | Path | None = None,
    *,
    root: str | Path | None = None,
) -> Benchmark:
    """A benchmark by name, with its question file (or folder) and folder of videos, or both found under `root`.

    `open` and `choice` take any question file in those layouts. Without a folder of videos (`videos_dir` is None)
    questions can be counted, not answered. Raises BenchmarkError, which names file and row.
    """
    spec = load_spec(name)
    found = Path(questions) if questions else _question_file(root, spec)
    if videos and not Path(videos).is_dir():
        raise BenchmarkError(f"{videos}: no such folder of videos")
    videos_dir = Path(videos) if videos else _first(_places(root, spec.videos, "data"))
    read, files = spec.read(found, name, spec.task)
    return Benchmark(spec, read, videos_dir, files)


def load_spec(name: str) -> Spec:
    """The `SPEC` of a benchmark's module."""
    if name not in benchmark_names():
        raise SfllavaError(f"no benchmark is called {name!r}; there are {', '.join(benchmark_names())}")
    return importlib.import_module(f"sfllava.benchmarks.{name}").SPEC


def benchmark_names() -> list[str]:
    """The names of the modules in this folder."""
    folder = str(Path(__file__).parent)
    return sorted(m.name for m in pkgutil.iter_modules([folder]) if m.name not in _NOT_BENCHMARKS)


def _places(root: str | Path | None, paths: tuple[str, ...], folder: str) -> list[Path]:
    return [Path(root) / part / path for part in ("", folder) for path in paths] if root else []


def _first(places: list[Path]) -> Path | None:
    return next((place for place in places if place.exists()), None)


def _question_file(root: str | Path | None, spec: Spec) -> Path:
    if root is None:
        raise BenchmarkError(f"{spec.name}: needed a question file, or a root folder that has it")
    places = _places(root, spec.questions, "gt_qa_files")
    if found := _first(places):
        return found
    listed = ", ".join(map(str, places)) or f"nowhere, for {spec.name} has no standard place"
    raise BenchmarkError(f"{spec.name}: no question file under {root}; looked at {listed}")


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else str(path)


def _index(folder: Path) -> dict[str, Path]:
    """Name or relative path, without suffix -> file; of equal names the first in sorted order."""
    found: dict[str, Path] = {}
    folders_of_frames: dict[str, Path] = {}
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in VIDEO_SUFFIXES:
                found.setdefault(_stem(path.relative_to(folder).as_posix()), path)
                found.setdefault(path.stem, path)
            elif path.suffix.lower() in IMAGE_SUFFIXES and parent != str(folder):
                folders_of_frames.setdefault(Path(parent).relative_to(folder).as_posix(), Path(parent))
                folders_of_frames.setdefault(Path(parent).name, Path(parent))
    return {**folders_of_frames, **found}  # a file beats a folder of frame images of the same name
