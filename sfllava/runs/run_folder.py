"""A run on disk: run.json, predictions.jsonl (append-only), scores.json, log.txt.

Rows are appended whole and synced to the disk. A process killed at any moment leaves at most one half-written last
line, and the next start removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sfllava.files import Row, RunError, log_to, printable, read_object, write_json
from sfllava.runs.coded import Block, Coded
from sfllava.runs.columns import read_blocks_once
from sfllava.runs.identity import asked_sha256, describe_mismatch, merge_settings, question_of
from sfllava.runs.journal import Journal, hold, read_rows_once, usable_files

PREDICTIONS = "predictions.jsonl"
# the fields of a row and of run.json that some part of the package reads
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
_OPTIONAL = {"task": str, "groups": {str: str}}
_WHAT, _AGAIN = "row of predictions", "a second row for question {} at setting {}"
_IDENTITY = {"benchmark": str, "questions": int, "settings": [{"name": str}]}
_RUN = {"identity": _IDENTITY, "sessions": [{}]}
AskedQuestions = tuple[str, int, str]
"""The name of a benchmark, the number of its questions that a run asks, and their SHA-256."""


class RunFolder:
    """A run folder, open for its only writer; use as a context manager.

    Args:
        path: The run folder. Entering the context creates it if there is none.
        identity: What makes two runs the same run. If the folder holds a run with a different identity, entering raises
            a RunError that shows the difference. New settings are not a difference; they are added to the run.
        facts: What may differ between two starts of the same run, such as device, versions and paths. Each start
            appends its facts and the time to the sessions in run.json.
        upgrade: Converts a run.json of an older version to the current format.
    """

    def __init__(
        self, path: str | Path, identity: Row, facts: Row, upgrade: Callable[[Row], Row] = lambda run: run
    ) -> None:
        self.path = Path(path)
        self._identity, self._facts, self._upgrade = json.loads(json.dumps(identity)), facts, upgrade

    def check(self) -> None:
        """Raise the errors that entering the context would raise, without writing anything."""
        try:
            if not self.path.exists():
                place = next(parent for parent in self.path.absolute().parents if parent.exists())
                if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
                    raise RunError(f"{self.path}: cannot be used as a run folder: {place} is not a writable folder")
                return
            if not self.path.is_dir():
                raise RunError(f"{self.path}: cannot be used as a run folder: it is a file")
            for path in (self.path, *self.path.glob("*.json*")):
                if not os.access(path, os.W_OK):
                    raise RunError(f"{path}: cannot be used as a run folder: not writable")
            if (self.path / ".lock").exists():
                with self._hold():
                    pass
            self._new_run_json()
            for _ in self.rows():  # reading checks each row
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
            write_json(self.path / "run.json", self._new_run_json())
            stack.enter_context(log_to(self.path / "log.txt"))
            self._journal = stack.enter_context(Journal(self.path / PREDICTIONS, _read))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows and sync them to the disk.

        Raises:
            RunError: The rows could not be written, for example to a full disk. The file is as it was before.
        """
        self._journal.append(rows)

    def rows(self) -> Iterator[Row]:
        """Return all rows, in the order in which they were written."""
        return read_rows(self.path)

    def drop_failed(self) -> int:
        """Remove rows that failed or lack subtitles or frame scores, so that their questions are asked again.

        Returns:
            The number of rows that were removed.
        """
        rows = list(self.rows())
        incomplete = ("error", "subtitle_error", "score_errors")
        kept = [row for row in rows if row["prediction"] is not None and not any(map(row.get, incomplete))]
        if len(kept) < len(rows):
            (self.path / "scores.json").unlink(missing_ok=True)  # they are about rows that are gone
            self._journal.replace(kept)
        return len(rows) - len(kept)

    def write_scores(self, scores: Row) -> None:
        """Replace scores.json."""
        write_json(self.path / "scores.json", scores)

    def _hold(self) -> contextlib.AbstractContextManager[None]:
        busy = f"{self.path}: another process is writing this run; wait for it or use another folder"
        return hold(self.path / ".lock", busy)

    def _new_run_json(self) -> Row:
        """Return run.json with this session added, or raise RunError if the folder holds another run."""
        session = self._facts | {"started": datetime.now(UTC).isoformat(timespec="seconds")}
        new = {"identity": self._identity, "sessions": [session]}
        if not (self.path / "run.json").exists():
            if (self.path / PREDICTIONS).exists():
                raise RunError(f"{self.path}: predictions.jsonl without run.json: not a run folder of sfllava")
            return new
        before = self._upgrade(read_run(self.path))
        if reasons := describe_mismatch(before, new):
            raise RunError(
                f"{self.path}: this folder holds another run; use a new folder, or the same arguments: "
                + "; ".join(reasons)
            )
        identity = merge_settings(before["identity"], self._identity)
        return {"identity": identity, "sessions": [*before["sessions"], session]}


def read_run(path: str | Path) -> Row:
    """Read the run.json of a run folder.

    Raises:
        RunError: There is no such file, or it lacks a field.
    """
    return read_object(Path(path) / "run.json", "the run.json of a run", _RUN)


def asked_questions(path: str | Path) -> AskedQuestions:
    """Return which questions a run asks, as far as two runs can be compared by them.

    A run.json of sfllava 0.1.0 has no hash of its questions; the hash is then computed from the rows, which repeat each
    question.
    """
    identity = read_run(path)["identity"]
    name, count, digest = (identity.get(field) for field in ("benchmark", "questions", "asked_sha256"))
    if digest is None:
        rows = {row["key"]: row for row in read_rows(path)}.values()
        digest = asked_sha256(map(question_of, rows))
    return str(name), count, digest


def read_rows(path: str | Path) -> Iterator[Row]:
    """Yield the rows of a run folder's predictions.jsonl; a half-written last line is skipped.

    Raises:
        RunError: A line lacks a field, has NaN for a number, or repeats a question at the same setting. The message
            has the line's number.
    """
    return _read(Path(path) / PREDICTIONS)


def read_row_blocks(path: str | Path) -> Iterator[Block]:
    """Yield the rows of a run folder's predictions.jsonl as columns, in blocks: the fields that each row has, and task
    and groups.

    Raises:
        RunError: As for `read_rows`.
    """
    file = Path(path) / PREDICTIONS
    for block in read_blocks_once(file, _WHAT, _ROW, _OPTIONAL, ("key", "setting"), _AGAIN):
        error = block["error"]
        yield block | {"error": Coded(error.codes, [printable(text) for text in error.values])}


def _read(file: Path) -> Iterator[Row]:
    for row in read_rows_once(file, _WHAT, _ROW, lambda row: (row["key"], row["setting"]), _AGAIN):
        if row["error"]:  # it may contain a file name that is not valid UTF-8, which no table or figure can show
            row["error"] = printable(row["error"])
        yield row
