"""Annotated spans: when the video shows the answer to each question, in the format of NExT-GQA's gsub files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.files import shorten
from sfllava.types import Question, SfllavaError

Span = tuple[float, float]
"""Start and end in seconds."""
OVERHANG_SECONDS = 1.0
"""How far a span may extend beyond its video. A few spans in the published files do, by up to 0.5 s, because durations
are rounded to whole seconds. They are scored unchanged."""


@dataclass(frozen=True)
class AnnotatedVideo:
    """The spans of one video.

    Attributes:
        duration: in seconds.
        fps: frames per second; None if the file does not give it.
        spans: the spans of each question, by its id.
    """

    duration: float
    fps: float | None
    spans: dict[str, tuple[Span, ...]]


@dataclass(frozen=True)
class AnnotatedQuestion:
    """A question with spans.

    Attributes:
        question: the question; a placeholder without text if the question file does not contain it.
        qid: its id in the file of spans.
        spans: the spans that show the answer; a prediction has to match only one of them.
        duration: of the video, in seconds.
        fps: frames per second of the video, None if unknown.
    """

    question: Question
    qid: str
    spans: tuple[Span, ...]
    duration: float
    fps: float | None = None

    @property
    def asked(self) -> bool:
        """Whether the question file contains this question."""
        return bool(self.question.text)


@dataclass(frozen=True)
class Annotations:
    """A file of spans.

    Attributes:
        path: the file.
        videos: the annotated videos by name.
        sha256: of the file.
    """

    path: Path
    videos: dict[str, AnnotatedVideo]
    sha256: str

    def match(self, questions: Sequence[Question]) -> tuple[list[AnnotatedQuestion], list[Question]]:
        """Match the questions of a benchmark with the spans.

        A question and its spans have the same video and the same id. The question's id may start with the
        video's name and an underscore.

        Args:
            questions: all questions of the benchmark.

        Returns:
            All annotated questions, with those that are missing from the benchmark at the end; and the questions
            without spans.

        Raises:
            SfllavaError: no question has a span, or two questions have the same id.
        """
        found: dict[tuple[str, str], AnnotatedQuestion] = {}
        without: list[Question] = []
        for question in questions:
            video = self.videos.get(question.video)
            plain = question.id.removeprefix(f"{question.video}_")
            qid = next((name for name in (question.id, plain) if video and name in video.spans), None)
            if video is None or qid is None:
                without.append(question)
                continue
            if (question.video, qid) in found:
                raise SfllavaError(
                    f"{self.path}: video {question.video!r}, question {qid!r}: needed one question with this id, "
                    f"got {found[question.video, qid].question.key} and {question.key}"
                )
            found[question.video, qid] = AnnotatedQuestion(question, qid, video.spans[qid], video.duration, video.fps)
        if not found:
            example = f", such as video {questions[0].video!r}, id {questions[0].id!r}" if questions else ""
            raise SfllavaError(f"{self.path}: has no span for any of the {len(questions)} questions{example}")
        for name, video in self.videos.items():
            for qid, spans in video.spans.items():
                stand_in = Question("", f"{self.path.name}/{name}/{qid}", name, id=qid)
                entry = AnnotatedQuestion(stand_in, qid, spans, video.duration, video.fps)
                found.setdefault((name, qid), entry)
        return list(found.values()), without


def read_annotations(path: str | Path) -> Annotations:
    """Read a file of spans: `{video: {"duration": s, "location": {qid: [[start, end], ...]}, "fps": f}}`.

    Args:
        path: a JSON file, such as NExT-GQA's `gsub_val.json` or ShapesQA's `shapesqa_spans.json`.

    Returns:
        The spans.

    Raises:
        SfllavaError: the file cannot be read, or an entry is malformed; the message names video and question.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        videos = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise SfllavaError(f"{path}: cannot read the file of spans: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SfllavaError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(videos, dict) or not videos:
        raise SfllavaError(f"{path}: needed an object with an entry for each video, got {shorten(videos)}")
    read = {name: _read_video(entry, f"{path}: video {name!r}") for name, entry in videos.items()}
    return Annotations(path, read, hashlib.sha256(data).hexdigest())


def _read_video(entry: Any, where: str) -> AnnotatedVideo:
    if not isinstance(entry, dict):
        raise SfllavaError(f"{where}: needed an object with duration and location, got {shorten(entry)}")
    duration: Any = entry.get("duration")
    fps: Any = entry.get("fps")
    location = entry.get("location")
    if not _is_number(duration) or duration <= 0:
        raise SfllavaError(f"{where}: duration must be a number of seconds above 0, got {shorten(duration)}")
    if fps is not None and (not _is_number(fps) or fps <= 0):
        raise SfllavaError(f"{where}: fps must be a number above 0, got {shorten(fps)}")
    if not isinstance(location, dict):  # may be empty: a few published videos have no spans
        raise SfllavaError(f"{where}: location must be an object with spans by question, got {shorten(location)}")
    spans = {qid: _read_spans(listed, duration, f"{where}, question {qid!r}") for qid, listed in location.items()}
    return AnnotatedVideo(float(duration), fps, spans)


def _read_spans(listed: Any, duration: float, where: str) -> tuple[Span, ...]:
    if not isinstance(listed, list) or not listed:
        raise SfllavaError(f"{where}: needed a list of [start, end], got {shorten(listed)}")
    for pair in listed:
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise SfllavaError(f"{where}: needed [start, end] in seconds, got {shorten(pair)}")
        start, end = pair
        if start >= end:
            raise SfllavaError(f"{where}: needed a start before the end, got {start} to {end}")
        inside = -OVERHANG_SECONDS <= start < duration and 0 < end <= duration + OVERHANG_SECONDS
        if not inside:
            raise SfllavaError(f"{where}: needed a span inside the video, 0 to {duration}, got {start} to {end}")
    return tuple((float(start), float(end)) for start, end in listed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} occurs twice in one object")
        found[key] = value
    return found
