"""What a run has to judge, and the verdicts of one judge on disk, next to the predictions.

verdicts-NAME.jsonl has one row per question, setting and rubric; verdicts-NAME.json has the judge's identity. Rows are
appended whole and synced to the disk. A failed verdict stays in the file until the next start, which retries it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfllava.benchmarks.base import load_spec
from sfllava.benchmarks.spec import Spec
from sfllava.evaluators.judges.base import JudgeRequest
from sfllava.evaluators.judges.options import read_information, right_option
from sfllava.evaluators.judges.rubric import Rubric, load_rubric
from sfllava.files import RunError, as_line, log_to, read_lines, read_object, write_file, write_json
from sfllava.prompts import LETTERS
from sfllava.runs.journal import Journal, hold, read_rows_once, usable_files
from sfllava.runs.json_diff import describe_changes
from sfllava.runs.run_folder import read_rows, read_run

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
_BATCH = {"token": str, "id": str | None, "collected": bool, "contents": [str]}
_JUDGE_INFO = {"identity": {}, "sessions": list, "batches": [_BATCH]}


@dataclass(frozen=True)
class JudgeItem:
    """A prediction to judge by a rubric (for a pair, such as VCGBench's consistency: two), or why there is none.

    Attributes:
        key: The key of the question.
        setting: The name of the setting.
        rubric: The name of the rubric.
        video: The video of the question.
        request: What to send to a judge; None if inference failed.
        error: Why inference failed.
        type: The type of the question.
    """

    key: str
    setting: str
    rubric: str
    video: str
    request: JudgeRequest | None
    error: str | None = None
    type: str = ""

    @property
    def row_key(self) -> tuple[str, str, str]:
        """The key of the item's row in a verdict file, as `verdict_key` returns it."""
        return self.key, self.setting, self.rubric


def read_items(run: str | Path, rubrics: str | Path | None = None) -> list[JudgeItem]:
    """Read the items that a run has to judge, in the order of its predictions.

    Args:
        run: The run folder.
        rubrics: A folder with your own rubrics, one NAME.txt each.

    Returns:
        The items. Where inference failed, `request` is None. A pair of which one question is not asked yet is left out.

    Raises:
        RunError: The run's benchmark needs no judge, or a question has an unknown type or no options to choose from.
    """
    chosen = rubrics_by_type(run)
    items, firsts = [], {}
    for row in read_rows(run):
        kind = row["type"] if row["type"] in chosen else ""
        if kind not in chosen:
            raise RunError(f"{run}: question {row['key']}: type must be {', '.join(chosen)}, got {row['type']!r}")
        for name in chosen[kind]:
            rubric = load_rubric(name, rubrics)
            if not rubric.pair:
                items.append(_item(run, row["key"], (row,), rubric))
                continue
            stem, _, part = row["key"].rpartition("/")
            place = stem, row["setting"], name
            other = firsts.pop(place, None)
            if other is None:
                firsts[place] = row
            else:
                pair = (row, other) if part == "1" else (other, row)
                items.append(_item(run, stem, pair, rubric))
    return items


def rubrics_by_type(run: str | Path) -> dict[str, tuple[str, ...]]:
    """Return the names of the rubrics by which a run is judged, by the type of question; "" has those for all types.

    Raises:
        RunError: The run's benchmark needs no judge.
    """
    spec = load_spec(read_run(run)["identity"]["benchmark"])
    if found := rubrics_of(spec):
        return found
    if spec.task == "choice":
        raise RunError(f"{run}: multiple choice is scored by its letters and needs no judge")
    raise RunError(f"{run}: {spec.name} names no rubrics: its predictions need no judge")


def rubrics_of(spec: Spec) -> dict[str, tuple[str, ...]]:
    """Return the names of a benchmark's rubrics by the type of question; empty if its predictions need no judge."""
    return dict(spec.rubrics) or ({"": ("open",)} if spec.task == "open" else {})


def _item(run: str | Path, key: str, rows: tuple[Row, ...], rubric: Rubric) -> JudgeItem:
    row = rows[0]
    about = {"video": row["video"], "type": row["type"]}
    if errors := [r["error"] or "no prediction" for r in rows if r["error"] or r["prediction"] is None]:
        return JudgeItem(key, row["setting"], rubric.name, request=None, error=errors[0], **about)
    texts = (tuple(r["question"] for r in rows), row["answer"], tuple(r["prediction"] for r in rows))
    request = JudgeRequest(rubric, *texts)
    if rubric.head.chooses:
        options = tuple(row["options"]) or read_information(row["question"])
        if not 1 < len(options) <= len(LETTERS):
            raise RunError(f"{run}: question {key}: needed 2 to {len(LETTERS)} options, got {len(options)}")
        right = right_option(row["answer"], options)
        if right is None:
            raise RunError(f"{run}: question {key}: {row['answer']!r} is none of its {len(options)} options")
        request = replace(request, options=options, right=right)
    return JudgeItem(key, row["setting"], rubric.name, request=request, **about)


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
    again = "a second verdict on {} at setting {} by rubric {}"
    return read_rows_once(path, "row of verdicts", _NEEDED, verdict_key, again)


def read_aside(run: str | Path, name: str) -> Iterator[Row]:
    """Yield the verdicts of a judge that were set aside; a question may have several, on different predictions."""
    return read_lines(aside_path(run, name), "row of verdicts", _NEEDED)


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
