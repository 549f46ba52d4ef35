"""Finding the videos of a benchmark by the names in its question file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from sfllava.benchmarks.rows import BenchmarkError
from sfllava.sampler import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from sfllava.types import SfllavaError

_SUFFIX_ORDER = {suffix: i for i, suffix in enumerate(VIDEO_SUFFIXES)}


class LinkError(SfllavaError):
    """A link leads out of the folder of videos and must not be followed."""


class AmbiguousVideoError(BenchmarkError):
    """Several videos match a name; the message lists some of them."""


@dataclass(frozen=True)
class VideoIndex:
    """The videos below a folder, by name.

    Args:
        folder: the folder of videos.
        videos: file name, stem and relative path, with and without suffix -> the video files or folders of frame
            images of that name.
        links: links to folders outside, which were not searched.
        follow_links: whether links that lead out of the folder are followed.
        own_folders: the folders in the video names of a benchmark whose videos may also be in other folders.
    """

    folder: Path
    videos: dict[str, list[Path]]
    links: list[Path]
    follow_links: bool
    own_folders: frozenset[PurePosixPath] = frozenset()

    def find(self, name: str) -> Path:
        """Find a video by name; see `Benchmark.find_video`."""
        path = self._match(name) or self._match_loosely(name)
        links = self.links if path is None else self._outward_links(path)
        if links:
            raise LinkError(
                f"{name}: {links[0]} leads out of the folder of videos, to {os.path.realpath(links[0])}; pass "
                "--follow-links (follow_links=True) to follow such links"
            )
        if path is None:
            raise BenchmarkError(f"{name}: no such video under {self.folder}")
        return path

    def _match(self, name: str) -> Path | None:
        stem = _stem(name)
        for key in (name, stem, f"v_{stem}", stem.removeprefix("v_")):
            found = self.videos.get(key, [])
            # a relative path names one file, even if another file is called like its last part
            found = [path for path in found if key in _relative_names(path, self.folder)] or found
            if found:
                return _only(name, found)
        return None

    def _match_loosely(self, name: str) -> Path | None:
        """Find a video in a subfolder, with another case, or in a folder that the benchmark does not define."""
        path = PurePosixPath(_stem(name.lower()))
        stems = (path.name, f"v_{path.name}", path.name.removeprefix("v_"))
        found = next((found for stem in stems if (found := self._by_lower_stem.get(stem))), [])
        below = [each for each in found if _ends_with(self._parent(each), path.parent)]
        if below or not self.own_folders or any(_ends_with(folder, path.parent) for folder in self._folders):
            return _only(name, below) if below else None
        # a file in another folder of the benchmark is another video: both may be called video_1.mp4
        own = [PurePosixPath(str(folder).lower()) for folder in self.own_folders if folder.parts]
        free = [each for each in found if not any(_ends_with(self._parent(each), folder) for folder in own)]
        return _only(name, free) if free else None

    @cached_property
    def _by_lower_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in dict.fromkeys(path for paths in self.videos.values() for path in paths):
            found.setdefault(_stem(path.name.lower()), []).append(path)
        return found

    @cached_property
    def _folders(self) -> set[PurePosixPath]:
        return {self._parent(path) for paths in self._by_lower_stem.values() for path in paths}

    def _parent(self, path: Path) -> PurePosixPath:
        """The folder of a video, relative to the folder of videos, in lower case."""
        return PurePosixPath(path.relative_to(self.folder).parent.as_posix().lower())

    def _outward_links(self, path: Path) -> list[Path]:
        """The links that lead from a video (a file or a folder of frame images) out of the folder of videos."""
        if self.follow_links:
            return []
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        return [part for part in parts if _leads_out(part, self.folder)]


def index_videos(folder: Path, follow_links: bool, own_folders: Iterable[PurePosixPath] = ()) -> VideoIndex:
    """Search a folder and its subfolders for videos.

    Args:
        folder: the folder of videos, which may itself be a link.
        follow_links: also search folders behind links that lead out of it.
        own_folders: the folders in the video names of a benchmark whose videos may also be in other folders.

    Returns:
        Its videos by name. A file takes precedence over a folder of frame images of the same name.
    """
    files: dict[str, list[Path]] = {}
    image_folders: dict[str, list[Path]] = {}
    links: list[Path] = []
    seen: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder that was searched already, or to one of its own parents
            subfolders.clear()
            continue
        seen.add(real)
        outside = set() if follow_links else {name for name in subfolders if _leads_out(Path(parent, name), folder)}
        links += [Path(parent, name) for name in sorted(outside)]
        subfolders[:] = sorted(set(subfolders) - outside)
        relative = Path(parent).relative_to(folder).as_posix()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in VIDEO_SUFFIXES:
                for key in {name, path.stem, *_relative_names(path, folder)}:
                    files.setdefault(key, []).append(path)
        if relative != "." and any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names):
            for key in {Path(parent).name, relative}:
                image_folders.setdefault(key, []).append(Path(parent))
    return VideoIndex(folder, {**image_folders, **files}, links, follow_links, frozenset(own_folders))


def _only(name: str, found: list[Path]) -> Path:
    """Return the file to use for a video; raise AmbiguousVideoError if the files are different videos."""
    if len({(path.parent, _stem(path.name)) for path in found}) > 1:
        raise AmbiguousVideoError(f"{name}: more than one such video: {', '.join(map(str, found[:4]))}")
    # same folder, same stem: the first suffix in the list wins
    return min(found, key=lambda path: _SUFFIX_ORDER.get(path.suffix.lower(), len(_SUFFIX_ORDER)))


def _ends_with(path: PurePosixPath, end: PurePosixPath) -> bool:
    return path.parts[len(path.parts) - len(end.parts) :] == end.parts if end.parts else True


def _stem(name: str) -> str:
    """A name without a video suffix; other dots stay."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else str(path)


def _relative_names(path: Path, folder: Path) -> tuple[str, str]:
    relative = path.relative_to(folder).as_posix()
    return relative, _stem(relative)


def _leads_out(path: Path, folder: Path) -> bool:
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
