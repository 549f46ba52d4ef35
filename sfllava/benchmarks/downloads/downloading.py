"""Download the files of several benchmarks: list them, skip those that are complete, download the others one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from sfllava.benchmarks.base import benchmark_names, load_spec
from sfllava.benchmarks.downloads.addresses import DownloadError, resolve
from sfllava.benchmarks.downloads.fetch import FetchOptions, fetch
from sfllava.benchmarks.downloads.part import Part, is_there
from sfllava.benchmarks.downloads.unpack import unpack
from sfllava.benchmarks.remote_files import Downloads, RemoteFile
from sfllava.files import is_url, read_object, write_json
from sfllava.types import SfllavaError

Kind = Literal["questions", "videos"]
State = Literal["downloaded", "present", "failed"]


@dataclass(frozen=True)
class Target:
    """A file to download, and the first benchmark that needs it."""

    benchmark: str
    kind: Kind
    file: RemoteFile


@dataclass(frozen=True)
class Outcome:
    """The result for one file.

    Args:
        target: the file.
        state: whether it was downloaded, was already present, or failed.
        received: the number of bytes received for it.
        note: why it failed, or what could not be checked; empty otherwise.
    """

    target: Target
    state: State
    received: int = 0
    note: str = ""


def benchmarks_with_downloads(names: Sequence[str] = ()) -> dict[str, Downloads]:
    """Return the downloads that benchmarks declare.

    Args:
        names: the benchmarks; by default all that declare downloads.

    Raises:
        DownloadError: a named benchmark declares no downloads.
        SfllavaError: there is no benchmark with that name; the message lists all.
    """
    found: dict[str, Downloads] = {}
    for name in names or benchmark_names():
        if declared := load_spec(name).downloads:
            found[name] = declared
        elif names:
            raise DownloadError(f"{name}: has nothing to download")
    return found


def find_targets(declared: dict[str, Downloads], kinds: Sequence[Kind]) -> list[Target]:
    """Return the files of benchmarks, each path once.

    Args:
        declared: the downloads that the benchmarks declare, by name.
        kinds: question files, videos, or both.
    """
    places: dict[str, Target] = {}
    for kind in kinds:
        for name, downloads in declared.items():
            for file in downloads.questions if kind == "questions" else downloads.videos.files:
                places.setdefault(file.path, Target(name, kind, file))
    return list(places.values())


def download(
    targets: Sequence[Target],
    root: str | Path,
    *,
    source: str | None = None,
    options: FetchOptions | None = None,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Download, check and unpack files. A file that fails does not stop the others.

    Args:
        targets: the files.
        root: the root folder of the files; it is created if it does not exist.
        source: an http or https URL that replaces scheme and host, for a mirror.
        options: how to download them.
        report: called with the outcome of each file as soon as it is known.

    Returns:
        The outcomes, in the order of `targets`.

    Raises:
        DownloadError: `root` cannot be a folder, or another download is writing to it.
    """
    outcomes = []
    with _hold(_make_root(root)) as folder:
        for target in targets:
            try:
                outcome = _download_one(target, folder, source, options or FetchOptions())
            except SfllavaError as error:
                outcome = Outcome(target, "failed", note=str(error))
            except OSError as error:
                outcome = Outcome(target, "failed", note=f"{folder / target.file.path}: {error.strerror or error}")
            outcomes.append(outcome)
            report(outcome)
    return outcomes


def state_of(file: RemoteFile, root: Path) -> str:
    """Return the state of a file as text: already there, partly downloaded, or missing.

    Raises:
        DownloadError: there is a different file at its path.
    """
    path = root / file.path
    if (file.unpack and _is_unpacked(file, root)) or is_there(path, file.size, file.sha256):
        return "already there"
    size = Part(path).size
    return f"{size:,} bytes downloaded so far" if size else "to download"


def _download_one(target: Target, root: Path, source: str | None, options: FetchOptions) -> Outcome:
    file = target.file
    path = root / file.path
    if file.unpack and _is_unpacked(file, root):
        return Outcome(target, "present")
    note = "" if file.sha256 else "not checked: its SHA-256 is unknown"
    if is_there(path, file.size, file.sha256):
        state, received = "present", 0
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        received = fetch(resolve(file.url, source), Part(path), file.size, file.sha256, options)
        state = "downloaded"
    if file.unpack is not None:
        unpacked = unpack(path, root / file.unpack, progress=options.progress)
        # this note replaces the archive: the next call uses it to check that all files are there
        write_json(_note_path(file, root), {"files": unpacked})
        path.unlink()
        state = "downloaded"
    return Outcome(target, state, received, note)


def _note_path(file: RemoteFile, root: Path) -> Path:
    path = root / file.path
    return path.with_name(f"{path.name}.unpacked.json")


def _is_unpacked(file: RemoteFile, root: Path) -> bool:
    """Return whether an earlier call unpacked an archive and all of its files still have the right size."""
    note = _note_path(file, root)
    if not note.exists():
        return False
    files = read_object(note, "the list of an unpacked archive", {"files": {str: int}})["files"]
    folder = root / (file.unpack or "")
    return all((folder / path).is_file() and (folder / path).stat().st_size == size for path, size in files.items())


def _make_root(root: str | Path) -> Path:
    if is_url(root):
        raise DownloadError(f"{root}: needed a folder on this machine, got a URL")
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{root}: cannot download into this folder: {error.strerror or error}") from error
    return Path(root)


@contextmanager
def _hold(root: Path) -> Iterator[Path]:
    """Lock a folder, so that two downloads never write to the same partial file."""
    lock = FileLock(root / ".sfllava-download.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DownloadError(f"{root}: another download is writing to this folder; wait until it ends") from error
    except OSError as error:
        raise DownloadError(f"{root}: cannot be written: {error.strerror or error}") from error
    try:
        yield root
    finally:
        lock.release()
