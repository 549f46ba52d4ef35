"""Reading and writing files safely: checked JSON, files replaced whole or not at all, and a log file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from sfllava.types import SfllavaError


def is_url(path: object) -> bool:
    """Return whether a path is a URL, such as https://host/clip.mp4."""
    return re.match(r"[a-z][a-z0-9+.-]+:/+[^/]", str(path), re.IGNORECASE) is not None


Row = dict[str, Any]
_PARTS = ".parts-"


class RunError(SfllavaError):
    """A run folder or file cannot be used or written; nothing that was written before is lost."""


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also write the package's log messages, from level INFO, to a file."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # a full disk is reported once, when rows are written
    logger = logging.getLogger("sfllava")
    level = logger.level
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        with contextlib.suppress(OSError):
            handler.close()


def as_line(row: Row) -> bytes:
    """Return a row as a line of JSON."""
    # backslashreplace: a file name that is not valid UTF-8 must not stop the run
    return _to_json(row).encode("utf-8", "backslashreplace") + b"\n"


def _to_json(value: Any) -> str:
    """Return JSON that every reader accepts, with null where Python would write NaN or Infinity."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """Return text that can be written anywhere: bytes of a file name that are not valid UTF-8 become \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_csv(table: Any) -> str:
    """Return a pandas table as CSV, with an apostrophe before any text that a spreadsheet would run as a formula."""

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        safe = f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
        return printable(safe.replace("\r\n", "\n").replace("\r", "\n"))  # a bare \r would end the row

    return table.map(cell).rename(columns=cell).to_csv(index=False)


def as_json(value: Any) -> str:
    """Return JSON over several lines, with null for numbers that are missing."""
    return json.dumps(_without_nan(value), indent=1, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    """Return a number of numpy or pandas as Python has it, and None for one that is missing."""
    if hasattr(value, "item"):
        return _without_nan(value.item())
    return None


def read_lines(path: Path, what: str, needed: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of a JSON lines file; a half-written last line is skipped, and a missing file has no rows.

    Args:
        path: The file.
        what: What each line must be, for error messages: "not a `what`".
        needed: The fields that each row must have, and their kinds. A kind is a type, `[kind]` for a list of that kind,
            `{str: kind}` for an object with such values, or `{"name": kind}` for an object with these fields. NaN and
            Infinity do not match any kind.

    Raises:
        RunError: A line is not such a row; the message has the line's number and the field.
    """
    if path.exists():
        with path.open("rb") as lines:
            yield from parse_lines(lines, path, what, needed)


def parse_lines(
    lines: Iterable[bytes], path: Path, what: str, needed: Mapping[str, Any], first: int = 1
) -> Iterator[Row]:
    """Yield the rows of lines of a file, as `read_lines`; `first` is the number of the first line."""
    for i, line in enumerate(lines, first):
        if not line.endswith(b"\n"):
            return
        try:
            row = json.loads(line)
            if mismatch := _mismatch(row, needed):
                raise ValueError(mismatch)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path}, line {i}: not a {what}: {error}") from error
        yield row


def read_object(path: Path, what: str, needed: Mapping[str, Any]) -> Row:
    """Read the object in a JSON file.

    Args:
        path: The file.
        what: What the file must be, for error messages: "not `what`".
        needed: The fields that the object must have, as in `read_lines`.

    Raises:
        RunError: The file cannot be read or is not such an object; the message has the field.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if mismatch := _mismatch(value, needed):
            raise ValueError(mismatch)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not {what}: {error}") from error
    return value


def _mismatch(value: Any, kind: Any, name: str = "") -> str:
    """Describe why a value is not of a kind (see `read_lines`), with its field's name; empty if it is."""
    if isinstance(kind, Mapping):
        if not isinstance(value, dict):
            return f"{name} is {shorten(value)}" if name else f"needed an object, got {type(value).__name__}"
        if str in kind:
            kind = dict.fromkeys(value, kind[str])
        inside = f"{name}." if name else ""
        if missing := kind.keys() - value.keys():
            return f"no {', '.join(inside + field for field in sorted(missing))}"
        return next((found for field in kind if (found := _mismatch(value[field], kind[field], inside + field))), "")
    if isinstance(kind, list) and isinstance(value, list):
        return next((found for i, item in enumerate(value) if (found := _mismatch(item, kind[0], f"{name}[{i}]"))), "")
    fits = not isinstance(kind, list) and isinstance(value, kind)
    if isinstance(value, bool):  # in Python, True is also an int
        fits = fits and bool in (kind, *get_args(kind))
    if isinstance(value, float):
        fits = fits and math.isfinite(value)
    return "" if fits else f"{name} is {shorten(value)}"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; a file that exists is replaced."""
    write_file(path, json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def write_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; a file that exists is replaced."""
    with atomic_write(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all; use as a context manager.

    Args:
        path: The file to write.

    Yields:
        A path in the same folder, with the same suffix. What is written there replaces `path` at the end, unless the
        block raises.

    Raises:
        RunError: The file cannot be written.
    """
    part = partial_path(path)
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise RunError(f"{path}: cannot write: {error.strerror or error}") from error
        raise


@contextlib.contextmanager
def folder_of_parts(folder: Path) -> Iterator[Path]:
    """Write several files into a folder, all or none; use as a context manager.

    Args:
        folder: Where the files go; it is created if there is none.

    Yields:
        A hidden folder inside `folder`. The files written there move into `folder` at the end, unless the block raises.

    Raises:
        RunError: The folder cannot be written, or it already has a folder with the name of one of the files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = Path(tempfile.mkdtemp(prefix=f"{_PARTS}{_host()}-{os.getpid()}-", dir=folder))
    except OSError as error:
        raise RunError(f"{folder}: cannot write: {error.strerror or error}") from error
    try:
        yield parts
        made = sorted(parts.iterdir())
        if folders := [name.name for name in made if (folder / name.name).is_dir()]:
            raise RunError(f"{folder / folders[0]}: needed a file name, got a folder")
        try:
            for file in made:
                file.replace(folder / file.name)
        except OSError as error:
            raise RunError(f"{folder}: cannot write: {error.strerror or error}") from error
    finally:
        shutil.rmtree(parts, ignore_errors=True)
        for old in folder.glob(f"{_PARTS}*"):
            if _is_abandoned(old):
                shutil.rmtree(old, ignore_errors=True)


def _is_abandoned(parts: Path) -> bool:
    """Return whether the process that made a folder of parts was killed.

    Another host's processes cannot be checked: their folder counts as abandoned after a day.
    """
    host, _, rest = parts.name.removeprefix(_PARTS).partition("-")
    pid = rest.partition("-")[0]
    if host != _host() or not pid.isdecimal() or os.name != "posix":
        return time.time() - parts.stat().st_mtime > 86_400
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _host() -> str:
    return re.sub(r"\W", "_", platform.node())


def partial_path(path: Path) -> Path:
    """Return the path of a file while it is being written."""
    return path.with_name(f".part-{path.name}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shorten(value: Any) -> str:
    """Return a value as JSON for an error message, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."


def format_bytes(size: float) -> str:
    """Return a size in GiB or MiB, as text."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
