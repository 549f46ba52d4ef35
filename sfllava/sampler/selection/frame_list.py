"""Lists of frames for each question: a user's own, or those that others have published.

Forms that are read, as JSON, JSON lines or parquet:

- an object: video -> question -> frames;
- an object: video -> a list of rows, each with a question and its frames (as BOLT publishes them);
- a list of rows, or a table, each row with a video, a question and its frames;
- a list of lists of frames, in the order of the benchmark's questions (as AKS publishes them).

A question is named by its key, its id or its text, or several of them: one that names two questions of a video counts
for none. Whole numbers are indices of frames, from 0; numbers with a decimal
point are seconds from the start of the video.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sfllava.sampler import VIDEO_SUFFIXES
from sfllava.types import Question, SfllavaError

_VIDEO = ("video", "video_name", "video_id", "videoID", "vid")
_QUESTION = ("key", "question_id", "question_idx", "qid", "id", "question")
_FRAMES = ("indices", "frame_indices", "frame_idx", "frames")
Frames = tuple[int, ...] | tuple[float, ...]
Entry = tuple[str, list[str], Frames]
"""A video, the names of a question, and its frames."""


class FrameListError(SfllavaError):
    """A list of frames cannot be used; the message names the file."""


@dataclass(frozen=True)
class FrameList:
    """The frames of each question.

    Attributes:
        path: the file.
        sha256: the hash of its bytes.
        frames: (video without suffix, question's key, id or text) -> frames; of a list in the order of the questions,
            the positions in that order take the place of both.
    """

    path: str
    sha256: str
    frames: Mapping[tuple[str, str], Frames] = field(repr=False)

    def named(self, question: Question) -> Frames | None:
        """Return the frames of a question, as whole numbers or as seconds; None if the list has none."""
        video = without_suffix(question.video)
        names = (question.key, question.id, question.text)
        return next((found for name in names if name and (found := self.frames.get((video, name)))), None)

    def indices(self, question: Question, first: int, last: int, fps: float | None) -> tuple[int, ...]:
        """Return the indices of the frames of a question, in ascending order.

        Args:
            question: the question.
            first: the first frame of the video, or of the question's clip.
            last: the last one.
            fps: frames per second of the video, for a list of seconds.

        Raises:
            FrameListError: the list has none for the question, a frame is outside the video or clip, or there is no
                frame rate.
        """
        found, what = self.named(question), f"question {question.key or question.text[:60]!r}"
        if found is None:
            raise FrameListError(f"{self.path}: no frames for {what} of video {question.video}")
        if isinstance(found[0], float):
            if not fps:
                raise FrameListError(f"{self.path}: {what} has seconds, and video {question.video} has no frame rate")
            found = tuple(round(seconds * fps) for seconds in found)
        if outside := [i for i in found if not first <= i <= last]:
            raise FrameListError(
                f"{self.path}: {what} needs frame {outside[0]}, and video {question.video} has frames {first} to {last}"
            )
        return tuple(sorted(int(i) for i in found))

    def check(self, questions: list[Question]) -> None:
        """Raise FrameListError if the list has frames for none of the questions."""
        if not any(self.named(question) for question in questions):
            ours, theirs = questions[0], next(iter(self.frames))
            raise FrameListError(
                f"{self.path}: its {len(self.frames):,} selections are for other questions: needed {ours.video!r}, "
                f"{(ours.key or ours.text)[:60]!r} and the like, got {theirs[0]!r}, {theirs[1][:60]!r}"
            )


def read_frame_list(path: str | Path, questions: list[Question]) -> FrameList:
    """Read a list of frames.

    Args:
        path: a .json, .jsonl or .parquet file.
        questions: all questions of the benchmark, in order, for a list in that order.

    Raises:
        FrameListError: the file cannot be read, has another form, or is for other questions.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        value = _parse(path, data)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:160]
        raise FrameListError(f"{path}: cannot be read as a list of frames: {reason}") from error
    found = _by_name(path, list(_entries(path, value, questions)))
    listed = FrameList(str(path), hashlib.sha256(data).hexdigest(), found)
    listed.check(questions)
    return listed


def _by_name(path: Path, entries: list[Entry]) -> dict[tuple[str, str], Frames]:
    """Return the frames by video and question; a name that stands for different frames is left out."""
    found: dict[tuple[str, str], Frames | None] = {}
    for video, names, frames in entries:
        for key in ((without_suffix(video), name) for name in names):
            found[key] = frames if found.get(key, frames) == frames else None
    for video, names, _ in entries:
        if all(found[without_suffix(video), name] is None for name in names):
            raise FrameListError(f"{path}: has two selections for video {video}, question {names[0][:60]!r}")
    if not entries:
        raise FrameListError(f"{path}: needed frames of at least one question, got none")
    return {key: frames for key, frames in found.items() if frames is not None}


def _parse(path: Path, data: bytes) -> Any:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        return pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in data.decode("utf-8").splitlines() if line.strip()]
    return json.loads(data.decode("utf-8"))


def _entries(path: Path, value: Any, questions: list[Question]) -> Iterator[Entry]:
    """Yield the selections in a file."""
    if isinstance(value, dict):
        for video, asked in value.items():
            where = f"{path}: video {video!r}"
            if isinstance(asked, dict):
                for question, frames in asked.items():
                    yield video, [question], _frames(f"{where}, question {question[:60]!r}", frames)
            elif isinstance(asked, list):
                for number, row in enumerate(asked, 1):
                    yield video, *_row(f"{where}, selection {number}", row)
            else:
                raise FrameListError(f"{where}: needed its questions, got {type(asked).__name__}")
    elif isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        if len(value) != len(questions):
            raise FrameListError(
                f"{path}: a list in the order of the questions needs {len(questions):,} entries, got {len(value):,}"
            )
        for number, (question, row) in enumerate(zip(questions, value), 1):
            yield question.video, [question.key or question.text], _frames(f"{path}: entry {number}", row)
    elif isinstance(value, list):
        for number, row in enumerate(value, 1):
            where = f"{path}: row {number}"
            names, frames = _row(where, row)
            yield _fields(where, row, _VIDEO)[0], names, frames
    else:
        raise FrameListError(f"{path}: needed an object or a list, got {type(value).__name__}")


def _row(where: str, row: Any) -> tuple[list[str], Frames]:
    """Return the names of a row's question, and its frames."""
    if not isinstance(row, dict):
        raise FrameListError(f"{where}: needed an object, got {type(row).__name__}")
    name = next((name for name in _FRAMES if row.get(name) is not None), None)
    if name is None:
        raise FrameListError(f"{where}: needed a field {' or '.join(_FRAMES)}, got {', '.join(row)[:100]}")
    return _fields(where, row, _QUESTION), _frames(where, row[name])


def _fields(where: str, row: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    found = [str(row[name]) for name in names if row.get(name) is not None]
    if not found:
        raise FrameListError(f"{where}: needed a field {' or '.join(names)}, got {', '.join(row)[:100]}")
    return found


def _frames(where: str, value: Any) -> Frames:
    numbers = list(value) if isinstance(value, list) else []
    fits = all(isinstance(i, int | float) and not isinstance(i, bool) and 0 <= i < 2**53 for i in numbers)
    if not numbers or not fits:
        raise FrameListError(f"{where}: needed a list of frames, numbers from 0, got {str(value)[:60]}")
    if any(isinstance(i, float) for i in numbers):
        return tuple(float(i) for i in numbers)
    return tuple(numbers)


def without_suffix(video: str) -> str:
    """Return a video's name without its suffix, so that a.mp4 and a are one video."""
    path = PurePosixPath(video)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else video
