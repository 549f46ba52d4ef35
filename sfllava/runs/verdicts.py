"""What is to be judged in a run, and the verdicts of one judge on disk, next to the predictions.

verdicts-NAME.jsonl has one row per question, setting and rubric; verdicts-NAME.json has the judge's identity. Rows are
appended and synced in one piece. A failed verdict stays in the file until the next start, which retries it.
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
from sfllava.files import RunError, as_line, log_to, read_lines, read_object, write_file, write_json
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
_ABOUT = {"identity": {}, "sessions": list, "batches": [_BATCH]}
# question type of VCGBench -> the rubrics that its predictions are judged under
VCGBENCH = {"generic": ("CI", "DO", "CU"), "temporal": ("TU",), "consistency": ("CO",)}


@dataclass(frozen=True)
class JudgeItem:
    """A prediction (for VCGBench's consistency, two) to judge under a rubric, or why there is none."""

    key: str
    setting: str
    rubric: str
    video: str
    ask: JudgeRequest | None
    error: str | None = None

    @property
    def at(self) -> tuple[str, str, str]:
        """The item's key in a verdict file, as `verdict_key`."""
        return self.key, self.setting, self.rubric


def read_items(run: str | Path, rubrics: str | Path | None = None) -> list[JudgeItem]:
    """Read what is to be judged in a run, in the order of its predictions.

    Args:
        run: the run folder.
        rubrics: a folder with rubrics of your own, NAME.txt each.

    Returns:
        The items; where inference failed, `ask` is None.

    Raises:
        RunError: The run's benchmark needs no judge, or a question has an unknown type.
    """
    task = load_spec(read_run(run)["identity"]["benchmark"]).task
    rows = list(read_rows(run))
    if task == "choice":
        raise RunError(f"{run}: multiple choice is scored by its letters, without a judge")
    if task == "open":
        return [_item(row["key"], (row,), "open", rubrics) for row in rows]
    items, firsts = [], {}
    for row in rows:
        kind = row["type"]
        for rubric in VCGBENCH.get(kind, ()):
            if rubric != "CO":
                items.append(_item(row["key"], (row,), rubric, rubrics))
                continue
            stem, _, part = row["key"].rpartition("/")
            other = firsts.pop((stem, row["setting"]), None)
            if other is None:
                firsts[stem, row["setting"]] = row
            else:
                pair = (row, other) if part == "1" else (other, row)
                items.append(_item(stem, pair, rubric, rubrics))
        if kind not in VCGBENCH:
            raise RunError(f"{run}: question {row['key']}: type must be {', '.join(VCGBENCH)}, got {kind!r}")
    return items  # the other half of a pair may not be asked yet


def _item(key: str, rows: tuple[Row, ...], rubric: str, rubrics: str | Path | None) -> JudgeItem:
    row = rows[0]
    if errors := [r["error"] or "no prediction" for r in rows if r["error"] or r["prediction"] is None]:
        return JudgeItem(key, row["setting"], rubric, row["video"], None, errors[0])
    texts = (tuple(r["question"] for r in rows), row["answer"], tuple(r["prediction"] for r in rows))
    ask = JudgeRequest(load_rubric(rubric, rubrics), *texts)
    return JudgeItem(key, row["setting"], rubric, row["video"], ask)


class VerdictFile:
    """The verdict file of one judge, open for its only writer; a context manager.

    Args:
        run: the run folder.
        name: the judge's name, part of the file's.
        identity: what must be the same for all rows of the file.
        facts: about this call; recorded in the sessions.
        items: what the run has to judge now; verdicts on anything else are stale.

    Raises:
        RunError: The name is not valid.
    """

    def __init__(self, run: str | Path, name: str, identity: Row, facts: Row, items: Iterable[JudgeItem]) -> None:
        if not _NAME.fullmatch(name):
            raise RunError(f"a judge's name must be letters, digits, . _ and -, got {name!r}")
        self._name = name
        self.run, self.path, self._about = Path(run), verdicts_path(run, name), Path(run) / f"verdicts-{name}.json"
        self._identity, self._facts = json.loads(json.dumps(identity)), facts
        self._contents = {item.at: item.ask.content for item in items if item.ask}
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
        """Write rows, synced; where that fails the file is as it was before, and RunError says so."""
        self._journal.append(rows)

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of writing."""
        return read_verdicts(self.path)

    def waiting(self) -> set[str]:
        """Contents in batches that are not collected yet."""
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
    """The path of a judge's verdict file in a run folder."""
    return Path(run) / f"verdicts-{name}.jsonl"


def judge_names(run: str | Path) -> list[str]:
    """The judges that have verdicts in a run."""
    return sorted(path.stem.removeprefix("verdicts-") for path in Path(run).glob("verdicts-*.jsonl"))


def verdict_key(row: Row) -> tuple[str, str, str]:
    """The key of a row, unique in its verdict file: question, setting and rubric."""
    return row["key"], row["setting"], row["rubric"]


def read_verdicts(path: Path) -> Iterator[Row]:
    """The rows of a file of verdicts; a half-written last line is skipped.

    Raises:
        RunError: A line is no verdict, or repeats one; the message has the line's number.
    """
    return read_rows_once(path, "row of verdicts", _NEEDED, verdict_key, "a second verdict on {} {} {}")


def read_aside(run: str | Path, name: str) -> Iterator[Row]:
    """The verdicts of a judge that were put aside; one question may have several, on different predictions."""
    return read_lines(aside_path(run, name), "row of verdicts", _NEEDED)


def aside_path(run: str | Path, name: str) -> Path:
    """The path of the verdicts of a judge that were put aside."""
    return Path(run) / f"aside-{verdicts_path(run, name).name}"


def waiting_contents(about: Row) -> set[str]:
    """Contents in batches that are not collected yet."""
    return {content for batch in about["batches"] if not batch["collected"] for content in batch["contents"]}


def read_about(run: str | Path, name: str, needed: bool = False) -> Row:
    """Read verdicts-NAME.json: identity, sessions, batches; empty if there is no file and none is needed."""
    path = Path(run) / f"verdicts-{name}.json"
    if not needed and not path.exists():
        return {"identity": {}, "sessions": [], "batches": []}
    return read_object(path, "about a judge of ours", _ABOUT)
