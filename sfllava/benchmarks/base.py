"""What a benchmark is, finding its files, and finding its videos."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from sfllava.benchmarks.files import BenchmarkError, read_questions
from sfllava.files import is_url
from sfllava.sampler.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from sfllava.types import Question, SfllavaError, Task

_NOT_BENCHMARKS = {"base", "files"}
_SUFFIXES = {suffix: i for i, suffix in enumerate(VIDEO_SUFFIXES)}


class LinkError(SfllavaError):
    """A link that leads out of the folder of videos, and that is not to be followed."""


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
    types: Mapping[str, str] = field(default_factory=dict)
    """What the question file's codes for types of question mean"""


@dataclass
class Benchmark:
    """Loaded questions, and where their videos are."""

    spec: Spec
    questions: list[Question]
    videos_dir: Path | None
    files: list[Path] = field(default_factory=list)
    looked_at: list[Path] = field(default_factory=list)
    """Where the folder of videos was looked for, under a root."""
    follow_links: bool = False
    """Links that lead out of the folder of videos are followed."""

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
        """The file or frame folder of a video name: nested or not, with or without suffix and `v_` prefix.

        Raises BenchmarkError where there is none, and LinkError where it is, or may be, behind a link that leads out
        of the folder of videos and is not to be followed.
        """
        self.require_videos()
        stem = _stem(name)
        index, links = self._index
        for wanted in (name, stem, f"v_{stem}", stem.removeprefix("v_")):
            found = index.get(wanted, [])
            # a whole path below the folder names one file, whatever else has its last part as name
            found = [path for path in found if wanted in _inside(path, self.videos_dir)] or found
            if len({path.parent for path in found}) > 1:
                raise BenchmarkError(f"{name}: more than one such video: {', '.join(map(str, found[:4]))}")
            if found:  # of equal names in one folder the first suffix of the list
                path = min(found, key=lambda path: _SUFFIXES.get(path.suffix.lower(), len(_SUFFIXES)))
                links = [] if self.follow_links else _links_out(path, self.videos_dir)
                if not links:
                    return path
                break
        if links:
            raise LinkError(
                f"{name}: {links[0]} leads out of the folder of videos, to {os.path.realpath(links[0])}; such links "
                "are followed with --follow-links (follow_links=True)"
            )
        raise BenchmarkError(f"{name}: no such video under {self.videos_dir}")

    def require_videos(self) -> None:
        """Raise BenchmarkError where there is no folder of videos."""
        if self.videos_dir is None:
            looked = f"; looked at {', '.join(map(str, self.looked_at))}" if self.looked_at else ""
            raise BenchmarkError(f"{self.name}: no folder of videos was given or found{looked}")

    @cached_property
    def _index(self) -> tuple[dict[str, list[Path]], list[Path]]:
        assert self.videos_dir is not None
        return _index(self.videos_dir, self.follow_links)


def load_benchmark(
    name: str,
    questions: str | Path | None = None,
    videos: str | Path | None = None,
    *,
    root: str | Path | None = None,
    follow_links: bool = False,
) -> Benchmark:
    """A benchmark by name, with its question file (or folder) and folder of videos, or both found under `root`.

    `open` and `choice` take any question file in those layouts. follow_links: also links inside the folder of videos
    that lead out of it; the folder itself may always be a link. Without a folder of videos (`videos_dir` is None)
    questions can be counted, not answered. Raises BenchmarkError, which names file and row.
    """
    spec = load_spec(name)
    for path, what in ((questions, "a question file"), (videos, "a folder of videos"), (root, "a folder")):
        if is_url(path):
            raise BenchmarkError(f"{path}: needed {what} on this machine, got a URL: download it first")
    found = Path(questions) if questions else _question_file(root, spec)
    if videos and not Path(videos).is_dir():
        raise BenchmarkError(f"{videos}: no such folder of videos")
    places = [] if videos else _places(root, spec.videos, "data")
    videos_dir = Path(videos) if videos else _first(places)
    read, files = spec.read(found, name, spec.task)
    return Benchmark(spec, read, videos_dir, files, places, follow_links)


def find_benchmark(
    benchmark: Benchmark | str,
    questions: str | Path | None = None,
    videos: str | Path | None = None,
    root: str | Path | None = None,
    *,
    follow_links: bool = False,
) -> Benchmark:
    """A benchmark with its videos: a loaded one, or by name, as `load_benchmark` finds it. Raises BenchmarkError."""
    if isinstance(benchmark, str):
        benchmark = load_benchmark(benchmark, questions, videos, root=root, follow_links=follow_links)
    elif questions or videos or root:
        raise BenchmarkError(
            f"{benchmark.name}: root, questions and videos are for a benchmark by name; this one is loaded"
        )
    benchmark.require_videos()
    return benchmark


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


def _inside(path: Path, folder: Path | None) -> tuple[str, str]:
    inside = path.relative_to(folder or "").as_posix()
    return inside, _stem(inside)


def _index(folder: Path, follow_links: bool) -> tuple[dict[str, list[Path]], list[Path]]:
    """Each video's name and relative path, with and without suffix -> the files of that name.

    And the links to folders outside, where those are not to be followed.
    """
    found: dict[str, list[Path]] = {}
    folders_of_frames: dict[str, list[Path]] = {}
    links: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        out = set() if follow_links else {name for name in folders if _leads_out(Path(parent, name), folder)}
        links += [Path(parent, name) for name in sorted(out)]
        folders[:] = sorted(set(folders) - out)
        relative = Path(parent).relative_to(folder).as_posix()
        for name in sorted(files):
            path = Path(parent, name)
            if path.suffix.lower() in VIDEO_SUFFIXES:
                for key in {name, path.stem, *_inside(path, folder)}:
                    found.setdefault(key, []).append(path)
        if relative != "." and any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files):
            for key in {Path(parent).name, relative}:
                folders_of_frames.setdefault(key, []).append(Path(parent))
    return {**folders_of_frames, **found}, links  # a file beats a folder of frame images of the same name


def _links_out(path: Path, folder: Path | None) -> list[Path]:
    """The links by which a video, a file or a folder of frame images, leads out of the folder of videos."""
    assert folder is not None
    return [each for each in (sorted(path.iterdir()) if path.is_dir() else [path]) if _leads_out(each, folder)]


def _leads_out(path: Path, folder: Path) -> bool:
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
