"""The files of several benchmarks: which there are, which are there already, and fetching the others one by one."""

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
from sfllava.benchmarks.downloads.part import Part, is_there, record_path, was_fetched
from sfllava.benchmarks.downloads.unpack import unpack
from sfllava.benchmarks.remote_files import Downloads, RemoteFile
from sfllava.files import is_url, read_object, write_json
from sfllava.types import SfllavaError

Kind = Literal["questions", "videos"]
State = Literal["fetched", "there", "failed"]


@dataclass(frozen=True)
class Target:
    """A file to download, and the first benchmark that needs it."""

    benchmark: str
    kind: Kind
    file: RemoteFile


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Args:
        target: the file.
        state: whether it was fetched, was there already, or failed.
        received: the bytes that were received for it.
        note: why it failed, or what could not be checked; empty if there is nothing to say.
    """

    target: Target
    state: State
    received: int = 0
    note: str = ""


def benchmarks_with_downloads(names: Sequence[str] = ()) -> dict[str, Downloads]:
    """Return what benchmarks declare about downloads.

    Args:
        names: the benchmarks; by default all that declare something.

    Raises:
        DownloadError: a named benchmark declares nothing.
        SfllavaError: there is no benchmark of that name; the message lists all.
    """
    found: dict[str, Downloads] = {}
    for name in names or benchmark_names():
        if declared := load_spec(name).downloads:
            found[name] = declared
        elif names:
            raise DownloadError(f"{name}: has nothing to download")
    return found


def find_targets(declared: dict[str, Downloads], kinds: Sequence[Kind]) -> list[Target]:
    """Return the files of benchmarks, each place once.

    Args:
        declared: what the benchmarks declare, by name.
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
    """Fetch, check and unpack files. One that fails does not stop the others.

    Args:
        targets: the files.
        root: the folder below which they go; it is created if there is none.
        source: an http or https URL that takes the place of scheme and host, for a mirror.
        options: how they are fetched.
        report: called with the outcome of each file, as soon as it is known.

    Returns:
        The outcomes, in the order of `targets`.

    Raises:
        DownloadError: `root` cannot be a folder, or another download is writing there.
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
    """Return in words what is at a file's place: there already, a part of it, or nothing.

    Raises:
        DownloadError: another file is there.
    """
    path = root / file.path
    if (file.unpack and _is_unpacked(file, root)) or _is_there(file, path):
        return "there already"
    size = Part(path).size
    return f"{size:,} bytes of it are there" if size else "to fetch"


def _download_one(target: Target, root: Path, source: str | None, options: FetchOptions) -> Outcome:
    file = target.file
    path = root / file.path
    if file.unpack and _is_unpacked(file, root):
        return Outcome(target, "there")
    note = "" if file.sha256 else "not checked: its SHA-256 is not known"
    if _is_there(file, path):
        state, received = "there", 0
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched = fetch(
            resolve(file.url, source), Part(path, keep_record=file.unpack is not None), file.size, file.sha256, options
        )
        state, received = "fetched", fetched.received
        if fetched.sha256 and not file.sha256:
            note = "checked against the SHA-256 that the server states"
    if file.unpack is not None:
        unpacked = unpack(path, root / file.unpack, progress=options.progress)
        # the note takes the archive's place: it tells the next call that all of it is there
        write_json(_note_path(file, root), {"files": unpacked})
        path.unlink()
        record_path(path).unlink(missing_ok=True)
        state = "fetched"
    return Outcome(target, state, received, note)


def _is_there(file: RemoteFile, path: Path) -> bool:
    """Return whether a file is at its place; raise DownloadError at another one, or at an archive that may be another.

    An archive is deleted at the end, so that it must be known to be the one that was declared.
    """
    there = is_there(path, file.size, file.sha256)
    if there and file.unpack is not None and not (file.sha256 or was_fetched(path)):
        raise DownloadError(
            f"{path}: this command did not download this file, and its SHA-256 is not known, so it is neither unpacked "
            "nor deleted: move it away"
        )
    return there


def _note_path(file: RemoteFile, root: Path) -> Path:
    path = root / file.path
    return path.with_name(f"{path.name}.unpacked.json")


def _is_unpacked(file: RemoteFile, root: Path) -> bool:
    """Return whether an earlier call unpacked an archive and each of its files still has its size."""
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
        raise DownloadError(f"{root}: cannot be the folder to download into: {error.strerror or error}") from error
    return Path(root)


@contextmanager
def _hold(root: Path) -> Iterator[Path]:
    """Keep a second download out of a folder: two processes would write to one part."""
    lock = FileLock(root / ".sfllava-download.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DownloadError(f"{root}: another download is writing there; wait for it to end") from error
    except OSError as error:
        raise DownloadError(f"{root}: cannot be written: {error.strerror or error}") from error
    try:
        yield root
    finally:
        lock.release()
