"""What failed: a video for a reason of its own, or whatever works on it, as a GPU after an assertion on the device."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sfllava.files import Row
from sfllava.models.memory import out_of_memory
from sfllava.types import SfllavaError

IN_A_ROW = 3
"""Videos that fail with one same unexpected error, after which it is not the videos that are to blame"""


@dataclass(frozen=True)
class Outcome:
    """Rows that belong together on disk.

    Where a video failed, and neither an SfllavaError nor the memory explains it: its name, the unexpected error, and
    the setting where it failed at one alone.
    """

    rows: list[Row]
    video: str = ""
    unexpected: str | None = None
    setting: str = ""

    @property
    def answered(self) -> set[str]:
        """The videos of which a question was answered."""
        return {row["video"] for row in self.rows if row["error"] is None}


def outcome_of_error(video: str, rows: list[Row], error: Exception, setting: str = "") -> Outcome:
    """The outcome of a video that failed with this error, at one setting or all; `rows` have its reason."""
    expected = isinstance(error, SfllavaError) or out_of_memory(error)
    return Outcome(rows, video, None if expected else reason_of(error), setting)


def outcome_of_video(video: str, outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of all of a video's settings."""
    errors = [one.unexpected for one in outcomes if one.unexpected]
    return Outcome([row for one in outcomes for row in one.rows], video, errors[0] if errors else None)


class Streak:
    """Videos in a row that failed at a setting with one same unexpected error; their rows are held back.

    An answer for another video at that setting, or a different error, shows that the videos caused it. IN_A_ROW of them
    show that they did not. order: each video's position in the run; by default, order of arrival.
    """

    def __init__(self, order: Mapping[str, int] | None = None) -> None:
        self.error = ""
        self._order = dict(order or {})
        self._held: dict[str, dict[str, list[Row]]] = {}
        """By setting and video"""
        self._errors: dict[str, str] = {}
        self._answered: dict[str, set[int]] = {}
        """By setting the places of the videos that were answered last"""

    @property
    def videos(self) -> list[str]:
        """Those whose rows are held back."""
        return list(dict.fromkeys(video for held in self._held.values() for video in held))

    @property
    def broken(self) -> bool:
        """Whether it is not the videos that are to blame."""
        for setting, held in self._held.items():
            places = sorted(map(self._place, held))
            answered = self._answered.get(setting, set())
            for first, last in zip(places, places[IN_A_ROW - 1 :]):
                if not any(first < place < last for place in answered):
                    self.error = self._errors[setting]
                    return True
        return False

    def add(self, done: Outcome) -> list[list[Row]]:
        """The rows that may be written now, of what was held back and of what is done."""
        if done.unexpected is None:
            right = [row for row in done.rows if row["error"] is None]
            for setting in ("", *{row["setting"] for row in right}):
                here = {self._place(row["video"]) for row in right if setting in ("", row["setting"])}
                self._answered[setting] = here or self._answered.get(setting, set())
            free = [rows for s in list(self._held) if self._answered_by(right, s) for rows in self._release(s)]
            return [*free, done.rows]
        setting, held = done.setting, self._held.get(done.setting, {})
        another = done.video not in held and _kind(done.unexpected) != _kind(self._errors.get(setting, ""))
        free = self._release(setting) if another else []
        if not self._held.get(setting):
            self._errors[setting] = done.unexpected
        self.error = done.unexpected
        self._held.setdefault(setting, {}).setdefault(done.video, []).extend(done.rows)
        self._place(done.video)
        return free

    def release(self) -> list[list[Row]]:
        """The rows that were held back, which are from now on not."""
        return [rows for setting in list(self._held) for rows in self._release(setting)]

    def _release(self, setting: str) -> list[list[Row]]:
        return list(self._held.pop(setting, {}).values())

    @staticmethod
    def _answered_by(right: list[Row], setting: str) -> bool:
        return any(setting in ("", row["setting"]) for row in right)

    def _place(self, video: str) -> int:
        return self._order.setdefault(video, len(self._order))

    def stop(self, where: str = "") -> SfllavaError:
        """The error with which a run stops."""
        return SfllavaError(
            f"{IN_A_ROW} videos in a row{where} failed with the same error, probably not their own: {self.error}; "
            "earlier rows are kept, and the same command resumes the run and asks these again"
        )


def reason_of(error: BaseException) -> str:
    """An error in one line, for a row and the log."""
    text = str(error) if isinstance(error, SfllavaError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def _kind(reason: str) -> str:
    """What is the same of one error about another video: all but numbers and addresses."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "", reason)
