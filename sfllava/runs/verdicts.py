"""What is to be judged in a run, and the verdicts of one judge on disk, beside the predictions.

verdicts-NAME.jsonl has a row for each question, setting and rubric; verdicts-NAME.json what makes the judge this judge.
Rows are appended whole and synced; what failed stands in the file until the next start, which asks it again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.benchmarks.base import load_spec
from sfllava.evaluators.judges.base import JudgeRequest, load_rubric
from sfllava.files import RunError, as_line, log_to, read_object, write_file, write_json
from sfllava.runs.journal import Journal, hold, read_rows_once
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
_ABOUT = {"identity": {}, "sessions": list, "batches": [_BATCH]}
# question type of VCGBench -> the rubrics that its predictions are judged under
VCGBENCH = {"generic": ("CI", "DO", "CU"), "temporal": ("TU",), "consistency": ("CO",)}


@dataclass(frozen=True)
class JudgeItem:
    """One thing to judge: a prediction (of VCGBench's consistency, two) under a rubric, or why it cannot be."""

    key: str
    setting: str
    rubric: str
    video: str
    ask: JudgeRequest | None
    error: str | None = None

    @property
    def at(self) -> tuple[str, str, str]:
        """What is unique in a file of verdicts."""
        return self.key, self.setting, self.rubric


def read_items(run: str | Path, rubrics: str | Path | None = None) -> list[JudgeItem]:
    """All that is to be judged in a run, in the order of its predictions; what inference failed on has no `ask`.

    rubrics: a folder of your own wordings, one NAME.txt a rubric.
    """
    task = load_spec(read_run(run)["identity"]["benchmark"]).task
    rows = list(read_rows(run))
    if task == "choice":
        raise RunError(f"{run}: multiple choice is scored by its letters, without a judge")
    if task == "open":
        return [_unit(row["key"], (row,), "open", rubrics) for row in rows]
    units, firsts = [], {}
    for row in rows:
        kind = row["type"]
        for rubric in VCGBENCH.get(kind, ()):
            if rubric != "CO":
                units.append(_unit(row["key"], (row,), rubric, rubrics))
                continue
            stem, _, part = row["key"].rpartition("/")
            other = firsts.pop((stem, row["setting"]), None)
            if other is None:
                firsts[stem, row["setting"]] = row
            else:
                pair = (row, other) if part == "1" else (other, row)
                units.append(_unit(stem, pair, rubric, rubrics))
        if kind not in VCGBENCH:
            raise RunError(f"{run}: question {row['key']}: type must be {', '.join(VCGBENCH)}, got {kind!r}")
    return units  # half a pair is not asked yet


def _unit(key: str, rows: tuple[Row, ...], rubric: str, rubrics: str | Path | None) -> JudgeItem:
    row = rows[0]
    if errors := [r["error"] or "no prediction" for r in rows if r["error"] or r["prediction"] is None]:
        return JudgeItem(key, row["setting"], rubric, row["video"], None, errors[0])
    texts = (tuple(r["question"] for r in rows), row["answer"], tuple(r["prediction"] for r in rows))
    ask = JudgeRequest(load_rubric(rubric, rubrics), *texts)
    return JudgeItem(key, row["setting"], rubric, row["video"], ask)


class VerdictFile:
    """One writer's hold on the verdicts of one judge; a context manager. `units` tells rows of this run from stale."""

    def __init__(self, run: str | Path, name: str, identity: Row, facts: Row, units: Iterable[JudgeItem]) -> None:
        if not _NAME.fullmatch(name):
            raise RunError(f"a judge's name must be letters, digits, . _ and -, got {name!r}")
        self._name = name
        self.run, self.path, self._about = Path(run), verdicts_path(run, name), Path(run) / f"verdicts-{name}.json"
        self._identity, self._facts = json.loads(json.dumps(identity)), facts
        self._contents = {unit.at: unit.ask.content for unit in units if unit.ask}
        self.aside = Path(run) / f"aside-{self.path.name}"
        self.state: Row = {}
        """What stands in verdicts-NAME.json; `save` writes it."""

    def __enter__(self) -> VerdictFile:
        self._stack = contextlib.ExitStack()
        try:
            busy = f"{self.path}: another process is writing these verdicts; wait for it"
            self._stack.enter_context(hold(self.run / f".lock-{self.path.stem}", busy))
            self._stack.enter_context(log_to(self.run / "log.txt"))
            self._check_identity()
            self._journal = self._stack.enter_context(Journal(self.path, read_verdicts))
            self._drop_failed_and_stale()
        except BaseException as error:
            self._stack.close()
            if isinstance(error, OSError):
                raise RunError(f"{error.filename}: cannot be used: {error.strerror}") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows, synced; where that fails the file is as it was before, and RunError says so."""
        self._journal.append(rows)

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of writing."""
        return read_verdicts(self.path)

    def waiting(self) -> set[str]:
        """Contents that a batch of the provider's was asked for, and has not brought yet."""
        return waiting_contents(self.state)

    def save(self) -> None:
        """Write `state`."""
        write_json(self._about, self.state)

    def _check_identity(self) -> None:
        if self._about.exists():
            self.state = read_about(self.run, self._name, needed=True)
            if changed := sorted(describe_changes(self.state["identity"], self._identity)):
                raise RunError(
                    f"{self.path}: these verdicts are another judge's; give this one a name of its own, or the same "
                    f"settings: {'; '.join(changed)}"
                )
        elif self.path.exists():
            raise RunError(f"{self.path}: verdicts without {self._about.name}: nobody knows whose they are")
        else:
            self.state = {"identity": self._identity, "sessions": [], "batches": []}
        self.state["sessions"].append(self._facts)
        self.save()

    def _drop_failed_and_stale(self) -> None:
        """Remove verdicts that failed, and those on other predictions than the run has now."""
        rows = list(self.rows())
        given = [row for row in rows if not row["error"]]
        kept = [row for row in given if row["content"] == self._contents.get(verdict_key(row))]
        if stale := [row for row in given if row["content"] != self._contents.get(verdict_key(row))]:
            # they were paid for: kept aside, and used again if such a prediction comes back
            before = self.aside.read_bytes() if self.aside.exists() else b""
            write_file(self.aside, before + b"".join(map(as_line, stale)))
            log.warning("%s: %d verdicts on predictions that this run no longer has: put aside", self.path, len(stale))
        if len(kept) < len(rows):
            self._journal.replace(kept)


def verdicts_path(run: str | Path, name: str) -> Path:
    """Where a judge's verdicts stand in a run folder."""
    return Path(run) / f"verdicts-{name}.jsonl"


def judge_names(run: str | Path) -> list[str]:
    """The judges that have verdicts in a run."""
    return sorted(path.stem.removeprefix("verdicts-") for path in Path(run).glob("verdicts-*.jsonl"))


def verdict_key(row: Row) -> tuple[str, str, str]:
    """What is unique in a file of verdicts."""
    return row["key"], row["setting"], row["rubric"]


def read_verdicts(path: Path) -> Iterator[Row]:
    """The rows of a file of verdicts; a half-written last line is skipped.

    Raises:
        RunError: A line is no verdict, or repeats one; the message has the line's number.
    """
    return read_rows_once(path, "row of verdicts", _NEEDED, verdict_key, "a second verdict on {} {} {}")


def waiting_contents(about: Row) -> set[str]:
    """Contents that a batch of the provider's was asked for, and has not brought yet."""
    return {content for batch in about["batches"] if not batch["collected"] for content in batch["contents"]}


def read_about(run: str | Path, name: str, needed: bool = False) -> Row:
    """The verdicts-NAME.json of a judge: identity, sessions, batches; empty where there is none and none is needed."""
    path = Path(run) / f"verdicts-{name}.json"
    if not needed and not path.exists():
        return {"identity": {}, "sessions": [], "batches": []}
    return read_object(path, "about a judge of ours", _ABOUT)
