"""What failed: a video for a reason of its own, or whatever works on it, as a GPU after an assertion on the device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sfllava.disk import Row
from sfllava.models.memory import out_of_memory
from sfllava.types import SfllavaError

IN_A_ROW = 3
"""Videos that fail with one same unexpected error, after which it is not the videos that are to blame"""


@dataclass(frozen=True)
class Outcome:
    """Rows that belong together on disk.

    Where a video failed, and neither an SfllavaError nor the memory explains it: its name and the unexpected error.
    """

    rows: list[Row]
    video: str = ""
    unexpected: str | None = None

    @property
    def answered(self) -> set[str]:
        """The videos of which a question was answered."""
        return {row["video"] for row in self.rows if row["error"] is None}


def of_error(video: str, rows: list[Row], error: Exception) -> Outcome:
    """The outcome of a video that failed with this error; `rows` have its reason."""
    expected = isinstance(error, SfllavaError) or out_of_memory(error)
    return Outcome(rows, video, None if expected else reason_of(error))


def of_video(video: str, outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome of all of a video's settings."""
    errors = [one.unexpected for one in outcomes if one.unexpected]
    return Outcome([row for one in outcomes for row in one.rows], video, errors[0] if errors else None)


class Streak:
    """Videos in a row that failed, at one setting or all, with one same unexpected error; their rows are held back.

    Another video's answer, or another error, shows that it was their own. IN_A_ROW of them show that it was not.
    """

    def __init__(self) -> None:
        self.error = ""
        self._held: dict[str, list[list[Row]]] = {}

    @property
    def videos(self) -> list[str]:
        """Those whose rows are held back."""
        return list(self._held)

    @property
    def broken(self) -> bool:
        """Whether it is not the videos that are to blame."""
        return len(self._held) >= IN_A_ROW

    def add(self, done: Outcome) -> Iterable[list[Row]]:
        """The rows that may be written now, of what was held back and of what is done."""
        another = done.unexpected is not None and _kind(done.unexpected) != _kind(self.error)
        free = self.release() if another or done.answered - {done.video, *self._held} else []
        if done.unexpected is None:
            return [*free, done.rows]
        self.error = done.unexpected
        self._held.setdefault(done.video, []).append(done.rows)
        return free

    def release(self) -> list[list[Row]]:
        """The rows that were held back, which are from now on not."""
        held, self._held = self._held, {}
        return [rows for pieces in held.values() for rows in pieces]

    def stop(self, where: str = "") -> SfllavaError:
        """The error with which a run stops."""
        return SfllavaError(
            f"{IN_A_ROW} videos in a row{where} failed with the same error, so it is hardly theirs: {self.error}; the "
            "rows before are kept, and the same command asks these again and goes on"
        )


def reason_of(error: BaseException) -> str:
    """An error in one line, for a row and the log."""
    text = str(error) if isinstance(error, SfllavaError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def _kind(reason: str) -> str:
    """What is the same of one error about another video: all but numbers and addresses."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "", reason)
