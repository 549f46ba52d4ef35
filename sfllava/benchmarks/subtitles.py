"""Subtitles of videos: SubRip files, and the JSON files of LongVideoBench."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.benchmarks.rows import BenchmarkError

_TIMES = re.compile(r"(?<!\d)(\d{1,3}):(\d\d):(\d\d)[,.](\d{1,3})\s{0,9}-->\s{0,9}(\d{1,3}):(\d\d):(\d\d)[,.](\d{1,3})")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_MAX_BYTES = 1 << 26


class SubtitleError(BenchmarkError):
    """Subtitles cannot be read; the message names the file."""


@dataclass(frozen=True)
class Subtitle:
    """One subtitle: start and end in seconds, and its text in one line without tags."""

    start: float
    end: float
    text: str


def read_subtitles(path: Path) -> list[Subtitle]:
    """Read the subtitles of one video.

    Args:
        path: a SubRip file, or a JSON file with a list of {start, end, line} or {timestamp: [start, end], text}.

    Returns:
        The subtitles, sorted by start.

    Raises:
        SubtitleError: the file cannot be read or has no subtitles.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SubtitleError(f"{path}: needed a subtitle file of at most {_MAX_BYTES >> 20} MiB")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SubtitleError(f"{path}: cannot read the subtitles: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SubtitleError(f"{path}: needed subtitles in UTF-8: {error}") from error
    found = _read_json(path, text) if path.suffix.lower() == ".json" else _read_srt(text)
    if not found:
        raise SubtitleError(f"{path}: has no subtitles")
    return sorted(found, key=lambda subtitle: subtitle.start)


def lines_at(subtitles: Sequence[Subtitle], seconds: np.ndarray, start: float = 0.0) -> str:
    """Return the subtitles that are visible at the sampled frames, one per line, without duplicates.

    Args:
        subtitles: the subtitles of the video.
        seconds: (T) when each sampled frame is shown.
        start: the time in the subtitles that corresponds to the start of the video, in seconds.
    """
    times = np.sort(seconds[np.isfinite(seconds)]) + start
    chosen = []
    for subtitle in subtitles:
        first = np.searchsorted(times, subtitle.start)
        if subtitle.text and first < len(times) and times[first] <= subtitle.end:
            chosen.append(subtitle.text)
    return "\n".join(dict.fromkeys(chosen))


def _read_srt(text: str) -> list[Subtitle]:
    found = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        if times := _TIMES.search(block):
            start, end = (_seconds(*times.groups()[i : i + 4]) for i in (0, 4))
            # some files have a position after the times
            found.append(Subtitle(start, end, _plain(block[times.end() :].partition("\n")[2])))
    return found


def _read_json(path: Path, text: str) -> list[Subtitle]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SubtitleError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(rows, list):
        raise SubtitleError(f"{path}: needed a list of subtitles")
    return [_from_row(row, f"{path}, subtitle {i}") for i, row in enumerate(rows, 1)]


def _from_row(row: Any, where: str) -> Subtitle:
    if isinstance(row, dict) and "timestamp" in row:
        times, text = row["timestamp"], row.get("text")
    elif isinstance(row, dict):
        times, text = [row.get("start"), row.get("end")], row.get("line")
    else:
        times, text = None, None
    if not isinstance(times, list) or len(times) != 2 or not isinstance(text, str):
        raise SubtitleError(f"{where}: needed start, end and line, or timestamp and text")
    start = _number(times[0], where)
    # in some files the last subtitle has no end
    return Subtitle(start, math.inf if times[1] is None else _number(times[1], where), _plain(text))


def _number(value: Any, where: str) -> float:
    """Return a time in seconds; the value may also have the form 00:01:02.500."""
    parts = str(value).split(":") if isinstance(value, str | int | float) and not isinstance(value, bool) else []
    try:
        seconds = sum(float(part) * 60**i for i, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = math.nan
    if not parts or len(parts) > 3 or not math.isfinite(seconds):
        raise SubtitleError(f"{where}: needed a time in seconds, got {value!r}")
    return seconds


def _seconds(hours: str, minutes: str, seconds: str, fraction: str) -> float:
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + float(f"0.{fraction}")


def _plain(text: str) -> str:
    """Return a text in one line, without tags."""
    return " ".join(html.unescape(_TAG.sub("", text)).split())
