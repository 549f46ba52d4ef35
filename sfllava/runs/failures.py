"""Failures: of a single video, or of what works on the videos, such as a GPU after a device-side assertion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfllava.files import Row
from sfllava.models.memory import out_of_memory
from sfllava.runs.identity import job_of
from sfllava.types import SfllavaError

IN_A_ROW = 3
"""When this many videos in a row fail with the same unexpected error, the videos are probably not the cause."""
RESUMABLE = "; earlier rows are kept; the same command resumes the run and asks about these videos again"
"""The end of an error message of a run that has a run folder"""


@dataclass(frozen=True)
class Outcome:
    """Rows that are written to disk together, and the unexpected error that caused them, if any.

    Attributes:
        rows: The rows, of answers or of failures.
        video: The video that failed; may be empty if there is no unexpected error.
        unexpected: The error, if it is neither an SfllavaError nor a lack of memory.
        setting: The setting at which the video failed; empty if it failed at all of them.
    """

    rows: list[Row]
    video: str = ""
    unexpected: str | None = None
    setting: str = ""

    @property
    def answered(self) -> set[str]:
        """The videos with at least one answered question."""
        return {job_of(row) for row in self.rows if row["error"] is None}


def outcome_of_error(video: str, rows: list[Row], error: Exception, setting: str = "") -> Outcome:
    """Return the outcome of a video that failed.

    Args:
        video: The video.
        rows: The rows of its questions, which already have the reason.
        error: What it failed with.
        setting: The setting at which it failed; empty if it failed at all of them.
    """
    expected = isinstance(error, SfllavaError) or out_of_memory(error)
    return Outcome(rows, video, None if expected else reason_of(error), setting)


def outcome_of_video(video: str, outcomes: Sequence[Outcome]) -> Outcome:
    """Combine the outcomes of one video at several settings."""
    errors = [one.unexpected for one in outcomes if one.unexpected]
    return Outcome([row for one in outcomes for row in one.rows], video, errors[0] if errors else None)


class Streak:
    """Consecutive videos that failed at a setting with the same unexpected error; their rows are held back.

    If another video is answered at that setting, or fails with a different error, the failed videos were the cause, and
    their rows may be written. If IN_A_ROW consecutive videos fail with the same error, they were probably not.

    Args:
        order: The position of each video in the run. Default: the order in which the videos arrive.
    """

    def __init__(self, order: Mapping[str, int] | None = None) -> None:
        self.error = ""
        self._order = dict(order or {})
        self._held: dict[str, dict[str, list[Row]]] = {}
        """The rows, by setting and video."""
        self._errors: dict[str, str] = {}
        self._answered: dict[str, set[int]] = {}
        """By setting, the positions of the videos that were answered last."""

    @property
    def videos(self) -> list[str]:
        """The videos whose rows are held back."""
        return list(dict.fromkeys(video for held in self._held.values() for video in held))

    @property
    def broken(self) -> bool:
        """Whether so many consecutive videos failed that they are probably not the cause."""
        for setting, held in self._held.items():
            positions = sorted(map(self._position, held))
            answered = self._answered.get(setting, set())
            for first, last in zip(positions, positions[IN_A_ROW - 1 :]):
                if not any(first < position < last for position in answered):
                    self.error = self._errors[setting]
                    return True
        return False

    def add(self, done: Outcome) -> list[list[Row]]:
        """Take in an outcome.

        Returns:
            The groups of rows that may be written now, whether they were held back before or come from `done`.
        """
        if done.unexpected is None:
            answered = [row for row in done.rows if row["error"] is None]
            for setting in ("", *{row["setting"] for row in answered}):
                positions = {self._position(job_of(row)) for row in answered if setting in ("", row["setting"])}
                self._answered[setting] = positions or self._answered.get(setting, set())
            settings = [setting for setting in self._held if self._is_answered(setting, answered)]
            return [*(rows for setting in settings for rows in self._release(setting)), done.rows]
        setting, held = done.setting, self._held.get(done.setting, {})
        another = done.video not in held and _kind(done.unexpected) != _kind(self._errors.get(setting, ""))
        released = self._release(setting) if another else []
        if not self._held.get(setting):
            self._errors[setting] = done.unexpected
        self.error = done.unexpected
        self._held.setdefault(setting, {}).setdefault(done.video, []).extend(done.rows)
        self._position(done.video)
        return released

    def release(self) -> list[list[Row]]:
        """Stop holding rows back; return those that were held back."""
        return [rows for setting in list(self._held) for rows in self._release(setting)]

    def _release(self, setting: str) -> list[list[Row]]:
        return list(self._held.pop(setting, {}).values())

    @staticmethod
    def _is_answered(setting: str, answered: list[Row]) -> bool:
        return any(setting in ("", row["setting"]) for row in answered)

    def _position(self, video: str) -> int:
        return self._order.setdefault(video, len(self._order))

    def stop(self, where: str = "") -> SfllavaError:
        """Return the error that ends the run; `where` says where the videos failed."""
        return SfllavaError(
            f"{IN_A_ROW} videos in a row{where} failed with the same error, which they probably did not cause: "
            f"{self.error}{RESUMABLE}"
        )


def first_rows(done: Iterable[list[Row]], left: dict[str, Any]) -> list[list[Row]]:
    """Return the rows of the videos in `left`, which no other worker has answered yet; remove these videos from it."""
    return [rows for rows in done if left.pop(job_of(rows[0]), None)]


def reason_of(error: BaseException) -> str:
    """Return an error as one line of at most 500 characters, for a row and the log."""
    text = str(error) if isinstance(error, SfllavaError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def _kind(reason: str) -> str:
    """Return a reason without numbers and addresses, which differ between videos."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "", reason)
