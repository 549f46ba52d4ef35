"""What a run has to judge, and the verdicts of one judge on disk, next to the predictions.

verdicts-NAME.jsonl has one row per question, setting and rubric; verdicts-NAME.json has the judge's identity. Rows are
appended whole and synced to the disk. A failed verdict stays in the file until the next start, which retries it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.files import RunError, as_line, log_to, read_lines, read_object, write_file, write_json
from sfllava.runs.coded import Coded
from sfllava.runs.columns import read_blocks_once
from sfllava.runs.journal import Journal, hold, read_rows_once, usable_files
from sfllava.runs.json_diff import describe_changes
from sfllava.runs.judge_items import JudgeItem, JudgeItems

log = logging.getLogger(__name__)
Row = dict[str, Any]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_NEEDED = {
    "key": str,
    "setting": str,
    "rubric": str,
    "content": str,
    "correct": bool | None,
    "score": int | float | None,
    "error": str | None,
}
_KEY = ("key", "setting", "rubric")
_WHAT, _AGAIN = "row of verdicts", "a second verdict on {} at setting {} by rubric {}"
_BATCH = {"token": str, "id": str | None, "collected": bool, "contents": [str]}
_JUDGE_INFO = {"identity": {}, "sessions": list, "batches": [_BATCH]}


class VerdictFile:
    """The verdict file of one judge, open for its only writer; use as a context manager.

    Args:
        run: The run folder.
        name: The judge's name, which is part of the file name.
        identity: What must be the same for all rows of the file.
        facts: Facts about this call, such as its time, that are added to the sessions in verdicts-NAME.json.
        items: The items that the run has to judge now. Verdicts on anything else are stale.

    Raises:
        RunError: The name is not valid.
    """

    def __init__(self, run: str | Path, name: str, identity: Row, facts: Row, items: Iterable[JudgeItem]) -> None:
        if not _NAME.fullmatch(name):
            raise RunError(f"a judge's name may have only letters, digits, '.', '_' and '-', got {name!r}")
        self._name = name
        self.run, self.path, self._info = Path(run), verdicts_path(run, name), Path(run) / f"verdicts-{name}.json"
        self._identity, self._facts = json.loads(json.dumps(identity)), facts
        self._contents = {item.row_key: item.request.content for item in items if item.request}
        self.aside = aside_path(run, name)
        self.state: Row = {}
        """The content of verdicts-NAME.json; `save` writes it."""

    def __enter__(self) -> VerdictFile:
        busy = f"{self.path}: another process is writing these verdicts; wait for it"
        with usable_files(), contextlib.ExitStack() as stack:
            stack.enter_context(hold(self.run / f".lock-{self.path.stem}", busy))
            stack.enter_context(log_to(self.run / "log.txt"))
            self._check_identity()
            self._journal = stack.enter_context(Journal(self.path, read_verdicts))
            self._drop_failed_and_stale()
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
        return read_verdicts(self.path)

    def waiting(self) -> set[str]:
        """Return the contents in batches that are not collected yet."""
        return waiting_contents(self.state)

    def save(self) -> None:
        """Write `state` to verdicts-NAME.json."""
        write_json(self._info, self.state)

    def _check_identity(self) -> None:
        if self._info.exists():
            self.state = read_judge_info(self.run, self._name, needed=True)
            if changed := sorted(describe_changes(self.state["identity"], self._identity)):
                raise RunError(
                    f"{self.path}: these verdicts are another judge's; give this judge its own name, or use the "
                    f"same settings: {'; '.join(changed)}"
                )
        elif self.path.exists():
            raise RunError(f"{self.path}: verdicts without {self._info.name}: it is unknown which judge gave them")
        else:
            self.state = {"identity": self._identity, "sessions": [], "batches": []}
        self.state["sessions"].append(self._facts)
        self.save()

    def _drop_failed_and_stale(self) -> None:
        """Remove failed verdicts, and verdicts on predictions that the run no longer has."""
        rows = list(self.rows())
        given = [row for row in rows if not row["error"]]
        kept = [row for row in given if row["content"] == self._contents.get(verdict_key(row))]
        if stale := [row for row in given if row["content"] != self._contents.get(verdict_key(row))]:
            # they were paid for: they are kept in another file, and used again if the prediction comes back
            before = self.aside.read_bytes() if self.aside.exists() else b""
            write_file(self.aside, before + b"".join(map(as_line, stale)))
            log.warning("%s: %d verdicts on predictions that this run no longer has: set aside", self.path, len(stale))
        if len(kept) < len(rows):
            self._journal.replace(kept)


def verdicts_path(run: str | Path, name: str) -> Path:
    """Return the path of a judge's verdict file in a run folder."""
    return Path(run) / f"verdicts-{name}.jsonl"


def judge_names(run: str | Path) -> list[str]:
    """Return the names of the judges with verdicts in a run."""
    return sorted(path.stem.removeprefix("verdicts-") for path in Path(run).glob("verdicts-*.jsonl"))


def verdict_key(row: Row) -> tuple[str, str, str]:
    """Return the key of a row, unique in its verdict file: question, setting and rubric."""
    return row["key"], row["setting"], row["rubric"]


def read_verdicts(path: Path) -> Iterator[Row]:
    """Yield the rows of a verdict file; a half-written last line is skipped.

    Raises:
        RunError: A line is not a verdict, or repeats one. The message has the line's number.
    """
    return read_rows_once(path, _WHAT, _NEEDED, verdict_key, _AGAIN)


@dataclass(frozen=True)
class MatchedVerdicts:
    """What one judge says about the items of a run, as columns.

    Attributes:
        given: (N) whether the judge has a row for the item.
        failed: (N) whether the judge failed.
        stale: (N) whether the row is about another prediction than the run has now.
        correct: (N) 1 for yes, 0 for no, NaN for neither.
        score: (N) NaN where there is none.
    """

    given: np.ndarray
    failed: np.ndarray
    stale: np.ndarray
    correct: np.ndarray
    score: np.ndarray


def match_verdicts(items: JudgeItems, contents: np.ndarray, path: Path) -> MatchedVerdicts:
    """Read a verdict file and return its rows on the items of a run; other rows are left out.

    Args:
        items: The items.
        contents: (N) the hashes of their contents, `items.contents()`.
        path: The verdict file.

    Raises:
        RunError: As for `read_verdicts`.
    """
    rubrics = Coded(items.rubric, [rubric.name for rubric in items.rubrics])
    keys = (items.keys, Coded(items.rows["setting"].codes[items.first], items.rows["setting"].values), rubrics)
    codes = [{text: code for code, text in enumerate(column.values)} for column in keys]
    size = len(items)
    found = [np.full(size, np.nan) for _ in range(3)]
    same = np.zeros(size, bool)
    places = _places([column.codes for column in keys], codes)
    order = np.argsort(places)
    for block in read_blocks_once(path, _WHAT, _NEEDED, {}, _KEY, _AGAIN):
        own = [
            block[name].map([known.get(text, -1) for text in [*block[name].values, None]], np.int64)
            for name, known in zip(_KEY, codes)
        ]
        row_places = np.where(np.min(own, axis=0) < 0, -1, _places(own, codes))
        at = order[np.minimum(np.searchsorted(places, row_places, sorter=order), size - 1)] if size else order
        rows = np.flatnonzero(places[at] == row_places) if size else np.empty(0, int)
        at = at[rows]
        error = block["error"].map([float(bool(text)) for text in [*block["error"].values, ""]], float)
        for column, values in zip(found, (error, block["correct"], block["score"])):
            column[at] = values[rows]
        hashes = block["content"].map(map(hash, [*block["content"].values, ""]), np.int64)
        same[at] = hashes[rows] == contents[at]
    failed, correct, score = found
    given = ~np.isnan(failed)
    return MatchedVerdicts(given, failed == 1, given & ~same, correct, score)


def _places(columns: Sequence[np.ndarray], codes: Sequence[Mapping[str, int]]) -> np.ndarray:
    """Return the place of each row's key among all that there could be."""
    return np.ravel_multi_index([np.maximum(column, 0) for column in columns], [len(each) + 1 for each in codes])


def read_aside(run: str | Path, name: str) -> Iterator[Row]:
    """Yield the verdicts of a judge that were set aside; a question may have several, on different predictions."""
    return read_lines(aside_path(run, name), _WHAT, _NEEDED)


def aside_path(run: str | Path, name: str) -> Path:
    """Return the path of the file with a judge's verdicts that were set aside."""
    return Path(run) / f"aside-{verdicts_path(run, name).name}"


def waiting_contents(info: Row) -> set[str]:
    """Return the contents in batches that are not collected yet."""
    return {content for batch in info["batches"] if not batch["collected"] for content in batch["contents"]}


def read_judge_info(run: str | Path, name: str, needed: bool = False) -> Row:
    """Read verdicts-NAME.json.

    Args:
        run: The run folder.
        name: The judge's name.
        needed: Whether a missing file is an error.

    Returns:
        The judge's identity, its sessions and its batches, all empty if there is no file.

    Raises:
        RunError: The file lacks a field, or is missing although it is needed.
    """
    path = Path(run) / f"verdicts-{name}.json"
    if not needed and not path.exists():
        return {"identity": {}, "sessions": [], "batches": []}
    return read_object(path, "the record of a judge", _JUDGE_INFO)
