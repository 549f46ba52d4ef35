"""Unpacking an archive of videos: files and folders inside one folder, and nothing else.

Names are checked before the first file is written. An archive with a path that leads out of the folder, or with a link
or a device, is refused as a whole: data sets of videos need none of them, and links are how archives get out.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sfllava.benchmarks.downloads.addresses import DownloadError
from sfllava.display.progress import progress_bar
from sfllava.files import format_bytes, partial_path

_BLOCK = 2**20
# what the readers raise at damaged, encrypted or exotic archives
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
    ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What an archive may contain.

    Args:
        files: the most files and folders.
        ratio: how many times the archive's size its contents may have; videos hardly shrink.
        free_bytes: contents up to this size are not held to the ratio.
    """

    files: int = 1_000_000
    ratio: int = 50
    free_bytes: int = 2**30


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive: its name as it is there, whether it is a folder, its size in bytes."""

    name: str
    is_folder: bool
    size: int
    entry: zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, folder: Path, limits: Limits | None = None, *, progress: bool = True) -> dict[str, int]:
    """Unpack a zip or tar archive (plain, gz, bz2, xz).

    A file that is there already with the same contents is left as it is; each new one appears whole or not at all. So
    an unpacking that was stopped goes on when it is called again.

    Args:
        archive: the archive.
        folder: where its contents go; it may be a link, but nothing below it that a link leads out of is written.
        limits: what the archive may contain.
        progress: show a progress bar.

    Returns:
        The files by their paths below the folder, with their sizes in bytes.

    Raises:
        DownloadError: the archive is damaged or refused, another file is in the way, or the disk is full; the message
            names the archive and the path in it.
    """
    try:
        with _open(archive) as opened:
            members = list(_members(archive, opened))
            files = _check(archive, members, limits or Limits())
            _make_room(archive, folder, files)
            with progress_bar(sum(files.values()), "B", 0, progress, archive.name) as bar:
                for member in members:
                    _write(archive, opened, member, folder)
                    bar.update(member.size)
            return files
    except _DAMAGED as error:
        raise DownloadError(f"{archive}: cannot be unpacked: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise DownloadError(f"{archive}: cannot be unpacked into {folder}: {error.strerror or error}") from error


@contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if tarfile.is_tarfile(archive):  # first: a tar that ends with a zip in it would pass as a zip
        with tarfile.open(archive) as opened:
            yield opened
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield opened
    else:
        raise DownloadError(f"{archive}: needed a zip or tar archive")


def _members(archive: Path, opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    """Yield what is in an archive; raise DownloadError at what is neither a file nor a folder."""
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DownloadError(f"{archive}: {info.filename!r} is a link or a device; needed files and folders")
            yield _Member(info.filename, info.is_dir(), info.file_size, info)
        return
    for entry in opened:
        if not (entry.isfile() or entry.isdir()):
            to = f" to {entry.linkname!r}" if entry.linkname else ""
            raise DownloadError(f"{archive}: {entry.name!r} is a link{to} or a device; needed files and folders")
        yield _Member(entry.name, entry.isdir(), 0 if entry.isdir() else entry.size, entry)
    _check_end(archive, opened)


def _check_end(archive: Path, opened: tarfile.TarFile) -> None:
    """Raise DownloadError unless a tar ends as a whole one does: the reader takes any bad header for the end."""
    assert opened.fileobj is not None  # it is open
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DownloadError(
            f"{archive}: cut off or damaged: needed the end of the archive or a file at byte {opened.offset:,}; "
            "nothing was unpacked"
        )
    while opened.fileobj.read(_BLOCK):  # a compressed file has its checksum at its end
        pass


def _check(archive: Path, members: list[_Member], limits: Limits) -> dict[str, int]:
    """Return the files by their clean paths; raise DownloadError at a path that leads out, or beyond a limit."""
    files: dict[str, int] = {}
    for member in members:
        path = _clean(member.name)
        if path is None or not (path or member.is_folder):
            raise DownloadError(f"{archive}: {member.name!r} leads out of the folder; nothing was unpacked")
        if member.is_folder:
            continue
        if path in files:
            raise DownloadError(f"{archive}: {member.name!r} is there twice; nothing was unpacked")
        files[path] = member.size
    total, most = sum(files.values()), max(limits.free_bytes, limits.ratio * archive.stat().st_size)
    if len(members) > limits.files:
        raise DownloadError(f"{archive}: has {len(members):,} files and folders; allowed are {limits.files:,}")
    if total > most:
        raise DownloadError(f"{archive}: would unpack to {format_bytes(total)}; allowed are {format_bytes(most)}")
    return files


def _clean(name: str) -> str | None:
    """Return a path below a folder, "" for the folder itself, or None if the name leads out of it."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    absolute = name[:1] in ("/", "\\") or re.match(r"[A-Za-z]:", name)
    return None if absolute or ".." in parts or "\0" in name else "/".join(parts)


def _make_room(archive: Path, folder: Path, files: dict[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    needed = sum(size for path, size in files.items() if not (folder / path).exists())
    if needed > free:
        raise DownloadError(
            f"{archive}: unpacking needs {format_bytes(needed)}, the disk of {folder} has {format_bytes(free)} free"
        )


def _write(archive: Path, opened: zipfile.ZipFile | tarfile.TarFile, member: _Member, folder: Path) -> None:
    path = _clean(member.name)
    if not path:  # the folder itself
        return
    target = folder / path
    # links that were in the folder before must not lead out either
    if not target.parent.resolve().is_relative_to(folder.resolve()) or target.is_symlink():
        raise DownloadError(f"{archive}: {member.name!r} would be written through a link out of {folder}")
    if member.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        with _read(opened, member) as source:
            if not _equals(source, target, member.size):
                raise DownloadError(f"{archive}: {target}: another file is there: move it away")
        return
    part = partial_path(target)
    part.unlink(missing_ok=True)
    try:
        with _read(opened, member) as source, part.open("xb") as file:
            shutil.copyfileobj(source, file, _BLOCK)
        if (size := part.stat().st_size) != member.size:
            raise DownloadError(f"{archive}: {member.name!r}: needed {member.size:,} bytes, the archive has {size:,}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _read(opened: zipfile.ZipFile | tarfile.TarFile, member: _Member) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        return opened.open(member.entry)  # type: ignore[arg-type]
    stream = opened.extractfile(member.entry)  # type: ignore[arg-type]
    assert stream is not None  # it is a file
    return stream


def _equals(source: IO[bytes], target: Path, size: int) -> bool:
    """Return whether a file has the contents of a stream; a difference in size is told without reading."""
    if not target.is_file() or target.stat().st_size != size:
        return False
    with target.open("rb") as file:
        while True:
            new, old = source.read(_BLOCK), file.read(_BLOCK)
            if new != old:
                return False
            if not new:
                return True
