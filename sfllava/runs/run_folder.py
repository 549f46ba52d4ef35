"""A run on disk: run.json, predictions.jsonl (append-only), scores.json, log.txt.

Rows are appended whole and synced, so a process killed at any moment leaves at most one half-written last line,
which the next start cuts off.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sfllava.files import Row, RunError, log_to, printable, read_object, write_json
from sfllava.runs.identity import asked_sha256, changes, union
from sfllava.runs.journal import Journal, hold, read_rows_once, usable_files
from sfllava.types import Question

PREDICTIONS = "predictions.jsonl"
# what is read of a row and of run.json anywhere
_ROW = {
    "key": str,
    "setting": str,
    "video": str,
    "type": str,
    "question": str,
    "answer": str,
    "options": [str],
    "prediction": str | None,
    "visual_tokens": int | None,
    "seconds": {str: int | float},
    "error": str | None,
}
_IDENTITY = {"benchmark": str, "questions": int, "settings": [{"name": str}]}
_RUN = {"identity": _IDENTITY, "sessions": [{}]}
AskedQuestions = tuple[str, int, str]
"""A benchmark's name, how many of its questions, and their SHA-256"""


class RunFolder:
    """One writer's hold on a run folder; a context manager.

    `identity` is what makes two runs the same run: where run.json has another, that is an error which shows the
    difference; settings that are new join those of the run. `facts` may differ (device, versions, paths): each start
    adds its own to run.json's sessions, with the time. `upgrade` makes today's run.json of one of an older version.
    """

    def __init__(
        self, path: str | Path, identity: Row, facts: Row, upgrade: Callable[[Row], Row] = lambda run: run
    ) -> None:
        self.path = Path(path)
        self._identity, self._facts, self._upgrade = json.loads(json.dumps(identity)), facts, upgrade

    def check(self) -> None:
        """Raise what entering would raise; nothing is written."""
        try:
            if not self.path.exists():
                place = next(parent for parent in self.path.absolute().parents if parent.exists())
                if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
                    raise RunError(f"{self.path}: cannot be used as a run folder: {place} is no folder to write to")
                return
            if not self.path.is_dir():
                raise RunError(f"{self.path}: cannot be used as a run folder: it is a file")
            for path in (self.path, *self.path.glob("*.json*")):
                if not os.access(path, os.W_OK):
                    raise RunError(f"{path}: cannot be used as a run folder: not writable")
            if (self.path / ".lock").exists():
                with self._hold():
                    pass
            self._run()
            for _ in self.rows():  # reading checks each
                pass
        except OSError as error:
            raise RunError(f"{self.path}: cannot be used as a run folder: {error.strerror}") from error

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be used as a run folder: {error.strerror}") from error
        with usable_files(), contextlib.ExitStack() as stack:
            stack.enter_context(self._hold())
            write_json(self.path / "run.json", self._run())
            stack.enter_context(log_to(self.path / "log.txt"))
            self._journal = stack.enter_context(Journal(self.path / PREDICTIONS, _read))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows, whole and synced; RunError where that fails, and then the file is as it was before."""
        self._journal.append(rows)

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of writing."""
        return read_rows(self.path)

    def drop_failed(self) -> int:
        """Remove the rows that failed, so that their questions are asked again; returns how many there were."""
        rows = list(self.rows())
        kept = [row for row in rows if not row["error"] and row["prediction"] is not None]
        if len(kept) < len(rows):
            self._journal.replace(kept)
        return len(rows) - len(kept)

    def write_scores(self, scores: Row) -> None:
        """Replace scores.json."""
        write_json(self.path / "scores.json", scores)

    def _hold(self) -> contextlib.AbstractContextManager[None]:
        busy = f"{self.path}: another process is writing this run; wait for it or use another folder"
        return hold(self.path / ".lock", busy)

    def _run(self) -> Row:
        """The run.json to be; RunError where the folder holds another run."""
        session = self._facts | {"started": datetime.now(UTC).isoformat(timespec="seconds")}
        new = {"identity": self._identity, "sessions": [session]}
        if not (self.path / "run.json").exists():
            if (self.path / PREDICTIONS).exists():
                raise RunError(f"{self.path}: predictions.jsonl without run.json: not a run folder of ours")
            return new
        before = self._upgrade(read_run(self.path))
        if reasons := changes(before, new):
            raise RunError(
                f"{self.path}: this folder holds another run; use a new folder, or the same arguments: "
                + "; ".join(reasons)
            )
        identity = union(before["identity"], self._identity)
        return {"identity": identity, "sessions": [*before["sessions"], session]}


def read_run(path: str | Path) -> Row:
    """The run.json of a run folder."""
    return read_object(Path(path) / "run.json", "the run.json of a run", _RUN)


def asked_questions(path: str | Path) -> AskedQuestions:
    """What a run was asked. Of a run of sfllava 0.1.0, whose run.json does not say it, what its rows repeat."""
    identity = read_run(path)["identity"]
    name, count, digest = (identity.get(field) for field in ("benchmark", "questions", "asked_sha256"))
    if digest is None:
        rows = {row["key"]: row for row in read_rows(path)}.values()
        digest = asked_sha256(
            Question(
                row.get("question", ""),
                row["key"],
                row["video"],
                row.get("answer", ""),
                tuple(row.get("options") or ()),
                id=row.get("id", ""),
                type=row.get("type", ""),
            )
            for row in rows
        )
    return str(name), count, digest


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a run folder's predictions.jsonl; a half-written last line is skipped.

    Raises:
        RunError: A line lacks a field or has NaN for a number, or repeats a question at a setting; the message has the
            line's number.
    """
    return _read(Path(path) / PREDICTIONS)


def _read(file: Path) -> Iterator[Row]:
    again = "a second row for question {} at {}"
    for row in read_rows_once(file, "row of predictions", _ROW, lambda row: (row["key"], row["setting"]), again):
        if row["error"]:  # it may name a file whose name is no text, which no table or figure could show
            row["error"] = printable(row["error"])
        yield row
