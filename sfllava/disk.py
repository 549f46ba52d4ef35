"""Writing what must not be lost: whole rows, whole files, one writer at a time, and a log beside them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sfllava.types import SfllavaError

Row = dict[str, Any]


class RunError(SfllavaError):
    """A run folder or a file that cannot be used or written; nothing that was written is lost."""


def append_rows(descriptor: int, path: Path, rows: Iterable[Row]) -> None:
    """Append rows, whole and synced. Where that fails (a full disk) the file is as before, and RunError says so."""
    data = b"".join(map(as_line, rows))
    size = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise RunError(
            f"{path}: cannot write: {error.strerror}; the rows before are kept, and the same command goes on from there"
        ) from error


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """What the package logs, from INFO on, also goes to a file."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # a full disk is reported once, by append
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
    """A row as a line of JSON."""
    # backslashreplace: a byte that was no character in a file name must not stop the run
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def read_lines(path: Path, what: str, needed: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a file of JSON lines; a half-written last line is passed over, as is a file that is not there.

    needed: the fields that each must have, and their types. RunError names the line, and says that it is no `what`.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for i, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"needed an object, got {type(row).__name__}")
                if missing := needed.keys() - row.keys():
                    raise ValueError(f"no {', '.join(sorted(missing))}")
                if wrong := [name for name, kind in needed.items() if not isinstance(row[name], kind)]:
                    raise ValueError(f"{wrong[0]} is {_short(row[wrong[0]])}")
            except (ValueError, RecursionError) as error:
                raise RunError(f"{path}, line {i}: not a {what}: {error}") from error
            yield row


def read_object(path: Path, what: str, needed: Mapping[str, Any]) -> Row:
    """The object of a JSON file, with the fields that it must have; RunError says that it is not `what`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or not all(isinstance(value.get(name), kind) for name, kind in needed.items()):
            raise ValueError(f"needed {', '.join(needed)}")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not {what}: {error}") from error
    return value


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file, whole or not at all."""
    replace_file(path, json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file, whole or not at all."""
    with whole(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path`, with its suffix, to write a file at; the file then takes its place, whole or not at all."""
    part = part_of(path)
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


def part_of(path: Path) -> Path:
    """Where a file is while it is written."""
    return path.with_name(f".part-{path.name}")


def lock(file: Any) -> None:
    """Hold a file for this process alone; OSError where another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """In words what differs between two values of JSON; objects in lists are told apart by their names."""
    before, now = _by_name(before), _by_name(now)
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        was, is_ = _apart(before, now)
        yield f"{name} was {was}, is {is_}"


def _by_name(value: Any) -> Any:
    """A list of objects that have names of their own, as an object of them; any other value as it is."""
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in value)
    ):
        return value
    named = {v["name"]: v for v in value}
    return named if len(named) == len(value) else value


def _apart(before: Any, now: Any) -> tuple[str, str]:
    """Two values in short; of long ones the part in which they begin to differ."""
    was, is_ = (json.dumps(value, ensure_ascii=False) for value in (before, now))
    if max(len(was), len(is_)) <= 160:
        return was, is_
    same = next((i for i, (a, b) in enumerate(zip(was, is_)) if a != b), min(len(was), len(is_)))
    start = max(0, same - 40)
    return _part(was, start), _part(is_, start)


def _part(text: str, start: int) -> str:
    end = start + 120
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
