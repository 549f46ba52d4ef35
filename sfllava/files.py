"""Writing what must not be lost: whole rows, whole files, one writer at a time, and a log beside them."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from sfllava.types import SfllavaError


def is_url(path: object) -> bool:
    """Whether a path is the address of something on another machine, such as https://host/clip.mp4."""
    return re.match(r"[a-z][a-z0-9+.-]+:/+[^/]", str(path), re.IGNORECASE) is not None


Row = dict[str, Any]
_PARTS = ".parts-"


class RunError(SfllavaError):
    """A run folder or a file that cannot be used or written; nothing that was written is lost."""


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
    return _strict(row).encode("utf-8", "backslashreplace") + b"\n"


def _strict(value: Any) -> str:
    """JSON that every reader takes: null where Python would write NaN or Infinity."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """Text that any file or screen takes: bytes of a file name that are no characters become \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_csv(table: Any) -> str:
    """A pandas table as CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front."""

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        safe = f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
        return printable(safe.replace("\r\n", "\n").replace("\r", "\n"))  # a bare \r would end the row

    return table.map(cell).rename(columns=cell).to_csv(index=False)


def read_lines(path: Path, what: str, needed: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a file of JSON lines; a half-written last line is passed over, as is a file that is not there.

    needed: the fields that each must have, and their kinds: a type, `[kind]` for a list, `{str: kind}` for an object
    of such values, `{"name": kind}` for one with these fields. NaN and Infinity are of no kind. RunError names the
    line and the field, and says that it is no `what`.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for i, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                if wrong := _wrong(row, needed):
                    raise ValueError(wrong)
            except (ValueError, RecursionError) as error:
                raise RunError(f"{path}, line {i}: not a {what}: {error}") from error
            yield row


def read_object(path: Path, what: str, needed: Mapping[str, Any]) -> Row:
    """The object of a JSON file, with the fields that it must have, as `read_lines` has them.

    RunError names the field, and says that it is not `what`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if wrong := _wrong(value, needed):
            raise ValueError(wrong)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not {what}: {error}") from error
    return value


def _wrong(value: Any, kind: Any, name: str = "") -> str:
    """What is wrong with a value in words, which name its field; empty where it is of the kind."""
    if isinstance(kind, Mapping):
        if not isinstance(value, dict):
            return f"{name} is {_short(value)}" if name else f"needed an object, got {type(value).__name__}"
        if str in kind:
            kind = dict.fromkeys(value, kind[str])
        inside = f"{name}." if name else ""
        if missing := kind.keys() - value.keys():
            return f"no {', '.join(inside + field for field in sorted(missing))}"
        return next((wrong for field in kind if (wrong := _wrong(value[field], kind[field], inside + field))), "")
    if isinstance(kind, list) and isinstance(value, list):
        return next((wrong for i, item in enumerate(value) if (wrong := _wrong(item, kind[0], f"{name}[{i}]"))), "")
    fits = not isinstance(kind, list) and isinstance(value, kind)
    if isinstance(value, bool):  # which Python takes for a number
        fits = fits and bool in (kind, *get_args(kind))
    if isinstance(value, float):
        fits = fits and math.isfinite(value)
    return "" if fits else f"{name} is {_short(value)}"


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file, whole or not at all."""
    write_file(path, json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def write_file(path: Path, data: bytes) -> None:
    """Replace a file, whole or not at all."""
    with atomic_write(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside `path`, with its suffix, to write a file at; the file then takes its place, whole or not at all."""
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
    """A hidden folder inside `folder` to make files in; at the end all of them move into `folder`, or none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = Path(tempfile.mkdtemp(prefix=f"{_PARTS}{_host()}-{os.getpid()}-", dir=folder))
    except OSError as error:
        raise RunError(f"{folder}: cannot write: {error.strerror or error}") from error
    try:
        yield parts
        made = sorted(parts.iterdir())
        if folders := [name.name for name in made if (folder / name.name).is_dir()]:
            raise RunError(f"{folder / folders[0]}: needed a place for a file, got a folder")
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
    """Whether the process that made a folder of parts was killed; elsewhere than here, a day must have passed."""
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
    """Where a file is while it is written."""
    return path.with_name(f".part-{path.name}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
