"""What a benchmark is, and loading one by name."""

from __future__ import annotations

import hashlib
import importlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from sfllava.benchmarks.question_files import QuestionsRead, find_flaws
from sfllava.benchmarks.rows import BenchmarkError
from sfllava.benchmarks.spec import Spec
from sfllava.benchmarks.video_files import VideoIndex, index_videos
from sfllava.catalogue import unknown_name
from sfllava.display.html import table
from sfllava.display.objects import card, more, short, text
from sfllava.files import is_url
from sfllava.types import Question, SfllavaError


@dataclass
class Benchmark:
    """Loaded questions, and where their videos are.

    Args:
        spec: what is fixed about the benchmark.
        questions: its questions, in the order of the file.
        videos_dir: the folder of videos, None if there is none.
        files: the question files.
        looked_at: the paths below a root where the folder of videos was searched.
        follow_links: whether links that lead out of the folder of videos are followed.
        subtitles_dir: the folder of subtitles, None if there is none.
        flaws: flaws of the question files that do not prevent asking the questions, one line each.
    """

    spec: Spec
    questions: list[Question]
    videos_dir: Path | None
    files: list[Path] = field(default_factory=list)
    looked_at: list[Path] = field(default_factory=list)
    follow_links: bool = False
    subtitles_dir: Path | None = None
    flaws: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def published_counts(self) -> tuple[int | None, int | None]:
        """The published numbers of questions and of videos; None if unknown."""
        spec = self.spec
        known = [spec.counts[file.name] for file in self.files if file.name in spec.counts]
        if not known or len(known) < len(self.files):
            return spec.question_count, spec.video_count
        return sum(questions for questions, _ in known), known[0][1] if len(known) == 1 else spec.video_count

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the question files, in hexadecimal."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"Benchmark({self.name!r}, {len(self.questions)} questions, videos_dir={self.videos_dir!r})"

    def _repr_html_(self) -> str:
        asked, videos = self.questions, len({question.video for question in self.questions})
        of = [f" of {known:,}" if known and known != n else "" for n, known in
              zip((len(asked), videos), self.published_counts)]  # fmt: skip
        facts = [f"{len(asked):,}{of[0]} questions", f"{videos:,}{of[1]} videos", self.spec.task]
        facts += ["no folder of videos"] if self.videos_dir is None else []
        first = [
            {"video": q.video, "type": q.type, "question": short(q.text, 120), "answer": short(q.answer, 60)}
            for q in asked[:3]
        ]
        columns = [name for name in (first[0] if first else {}) if any(row[name] for row in first)]
        flaws = more(f"{len(self.flaws):,} flaws of the question files", text("\n".join(self.flaws[:20])))
        return card("Benchmark", self.name, table(first, columns), flaws if self.flaws else "", facts=facts)

    def find_video(self, name: str) -> Path:
        """Find the file or folder of frame images of a video.

        Args:
            name: the name in the question file. The file may be in a subfolder, have or lack the prefix `v_`, and have
                another suffix or case.

        Returns:
            Its path.

        Raises:
            BenchmarkError: there is no such video, more than one, or no folder of videos.
            LinkError: it is, or may be, behind a link that leads out of the folder of videos.
        """
        self.require_videos()
        return self._index.find(name)

    def require_videos(self) -> None:
        """Raise BenchmarkError if there is no folder of videos."""
        if self.videos_dir is None:
            looked = f"; looked at {', '.join(map(str, self.looked_at))}" if self.looked_at else ""
            raise BenchmarkError(f"{self.name}: no folder of videos was given or found{looked}")

    def find_subtitles(self, name: str) -> Path:
        """Find the subtitles of a video.

        Args:
            name: its file name, or its path below the folder of subtitles.

        Returns:
            Its path.

        Raises:
            BenchmarkError: there is no such file, or no folder of subtitles.
        """
        if self.subtitles_dir is None:
            raise BenchmarkError(f"{self.name}: needed a folder of subtitles, found none")
        path = self.subtitles_dir / name
        inside = _is_file_name(name) and path.resolve().is_relative_to(self.subtitles_dir.resolve())
        if not inside or not path.is_file():
            raise BenchmarkError(f"{name[:120]}: no such subtitle file in {self.subtitles_dir}")
        return path

    def require_subtitles(self) -> None:
        """Raise BenchmarkError if there is no folder of subtitles, or no question has any."""
        names = dict.fromkeys(question.subtitle_file for question in self.questions if question.subtitle_file)
        if self.subtitles_dir is None or not names:
            raise BenchmarkError(f"{self.name}: needed a folder of subtitles, found none")
        if not any((self.subtitles_dir / name).is_file() for name in names if _is_file_name(name)):
            raise BenchmarkError(f"{self.subtitles_dir}: has none of the {len(names):,} subtitles of {self.name}")

    @cached_property
    def _index(self) -> VideoIndex:
        assert self.videos_dir is not None
        folders = {PurePosixPath(q.video).parent for q in self.questions} if self.spec.movable_videos else ()
        return index_videos(self.videos_dir, self.follow_links, folders)


def load_benchmark(
    name: str,
    questions: str | Path | None = None,
    videos: str | Path | None = None,
    *,
    root: str | Path | None = None,
    follow_links: bool = False,
    subtitles: str | Path | None = None,
) -> Benchmark:
    """Load a benchmark's questions and find its folder of videos.

    Args:
        name: its name; `open` and `choice` take any question file with those columns.
        questions: its question file, or a folder that has it; by default it is looked for below `root`.
        videos: its folder of videos; by default it is looked for below `root`. Without one, questions can be counted,
            not answered.
        root: a folder with the published layout.
        follow_links: also follow links inside the folder of videos that lead out of it; that folder itself may always
            be a link.
        subtitles: its folder of subtitles; by default it is searched below `root`, then next to the videos.

    Returns:
        The benchmark; its `videos_dir` is None if there is no folder of videos.

    Raises:
        BenchmarkError: a file or folder is missing, or a question file is malformed; the message names file and row.
        SfllavaError: there is no benchmark of that name.
    """
    spec = load_spec(name)
    for path, what in ((questions, "a question file"), (videos, "a folder of videos"), (root, "a folder")):
        if is_url(path):
            raise BenchmarkError(f"{path}: needed {what} on this machine, got a URL: download it first")
    question_file = Path(questions) if questions else _find_question_file(root, spec)
    if videos and not Path(videos).is_dir():
        raise BenchmarkError(f"{videos}: no such folder of videos")
    found = spec.read(question_file, name, spec.task)
    read = found if isinstance(found, QuestionsRead) else QuestionsRead(*found)
    places = [] if videos else _places(root, spec.videos, "data")
    # the folder of the question file may have the name of a folder of videos
    elsewhere = [place for place in places if place not in {file.parent for file in read.files}]
    videos_dir = Path(videos) if videos else _first_existing(elsewhere)
    if subtitles and not Path(subtitles).is_dir():
        raise BenchmarkError(f"{subtitles}: no such folder of subtitles")
    near = [videos_dir.parent / Path(place).name for place in spec.subtitles] if videos_dir else []
    subtitles_dir = Path(subtitles) if subtitles else _first_existing(_places(root, spec.subtitles, "data") + near)
    flaws = [*read.flaws, *find_flaws(read.questions)]
    return Benchmark(spec, read.questions, videos_dir, read.files, places, follow_links, subtitles_dir, flaws)


def find_benchmark(
    benchmark: Benchmark | str,
    questions: str | Path | None = None,
    videos: str | Path | None = None,
    root: str | Path | None = None,
    *,
    follow_links: bool = False,
    subtitles: str | Path | None = None,
) -> Benchmark:
    """Return a benchmark and check that its folder of videos exists.

    Args:
        benchmark: a loaded benchmark, or the name of one to load with the other arguments.
        questions, videos, root, follow_links, subtitles: as in `load_benchmark`, for a benchmark by name.

    Returns:
        The benchmark.

    Raises:
        BenchmarkError: as in `load_benchmark`; or there is no folder of videos; or a loaded benchmark has arguments.
    """
    if isinstance(benchmark, str):
        benchmark = load_benchmark(
            benchmark, questions, videos, root=root, follow_links=follow_links, subtitles=subtitles
        )
    elif questions or videos or root or subtitles:
        raise BenchmarkError(
            f"{benchmark.name}: root, questions, videos and subtitles are for a benchmark by name; this one is loaded"
        )
    benchmark.require_videos()
    return benchmark


def load_spec(name: str) -> Spec:
    """Return the `SPEC` of a benchmark's module.

    Args:
        name: the benchmark's name.

    Returns:
        Its spec.

    Raises:
        SfllavaError: there is no benchmark of that name; the message lists all.
    """
    if name not in benchmark_names():
        raise SfllavaError(unknown_name("benchmark", name, benchmark_names()))
    return importlib.import_module(f"sfllava.benchmarks.{name}").SPEC


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks: the modules in this folder that define SPEC. None of them is imported."""
    folder = Path(__file__).parent
    modules = {path.stem: path for path in folder.glob("*.py")}
    modules |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
    return sorted(name for name, path in modules.items() if re.search(r"^SPEC\b", path.read_text("utf-8"), re.M))


def _is_file_name(name: str) -> bool:
    """Whether a file system can be asked for a file of this name."""
    return "\0" not in name and all(len(part.encode("utf-8", "replace")) <= 255 for part in PurePosixPath(name).parts)


def _find_question_file(root: str | Path | None, spec: Spec) -> Path:
    if root is None:
        raise BenchmarkError(f"{spec.name}: needed a question file, or a root folder that has it")
    places = _places(root, spec.questions, "gt_qa_files")
    if found := _first_existing(places):
        return found
    listed = ", ".join(map(str, places)) or f"nowhere, since {spec.name} has no standard place"
    raise BenchmarkError(f"{spec.name}: no question file under {root}; looked at {listed}")


def _places(root: str | Path | None, paths: tuple[str, ...], folder: str) -> list[Path]:
    """The paths below a root, and below the folder that the published code expects there."""
    return [Path(root) / part / path for part in ("", folder) for path in paths] if root else []


def _first_existing(places: list[Path]) -> Path | None:
    return next((place for place in places if place.exists()), None)
