"""Read a sample log of lmms-eval (`*_samples_*.jsonl`), and the results file next to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfllava.files import Row, RunError, read_object, shorten

NOT_ANSWERED = "no answer in the sample log"
_NAME = re.compile(r"(?P<date>.+?)_samples_(?P<task>.+)\.jsonl")
_NEEDED = ("doc_id", "target", "filtered_resps")
# fields of a line that are not about the document
_OWN_FIELDS = ("doc", "target", "input", "resps", "filtered_resps", "token_counts", "input_media")


@dataclass(frozen=True)
class Sample:
    """One line of a sample log.

    Attributes:
        where: The file and the line, for error messages.
        doc_id: The document's number in the task's data.
        target: The reference answer of the task: a letter, the text or number of an option, or any text.
        prompt: The text of the question that the model received; empty if the line has none.
        answer: The answer after the filters of the task; None if there is none.
        error: Why there is no answer; empty if there is one.
        visual_tokens: Number of visual tokens, if sfllava was the model.
        facts: Information about the document: the document itself if the line has it, the fields that the task's
            metrics repeat, and the fields that sfllava added if it was the model.
    """

    where: str
    doc_id: str
    target: str
    prompt: str
    answer: str | None
    error: str
    visual_tokens: int | None
    facts: tuple[Row, ...]


@dataclass(frozen=True)
class SampleLog:
    """A sample log and the results file of its run.

    Attributes:
        path: The file.
        task: The task of lmms-eval.
        samples: The lines of the log.
        results_path: The results file next to it; None if there is none.
        results: The contents of that file; empty if there is none.
    """

    path: Path
    task: str
    samples: list[Sample]
    results_path: Path | None = None
    results: Row = field(default_factory=dict)

    @property
    def config(self) -> Row:
        """The model and the options of the run."""
        found = self.results.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def expected(self) -> int | None:
        """The number of documents that lmms-eval reports; None if unknown."""
        counts = self.results.get("n-samples")
        of_task = counts.get(self.task) if isinstance(counts, dict) else None
        found = of_task.get("effective") if isinstance(of_task, dict) else None
        return int(found) if isinstance(found, int | float) and not self.config.get("offset") else None


def read_log(path: str | Path) -> SampleLog:
    """Read a sample log.

    Args:
        path: The file, or a folder with one such file.

    Returns:
        The log.

    Raises:
        RunError: There is no such file, or a line is not JSON, lacks a field, repeats a document, or has several
            answers; the message names the file and the line.
    """
    path = find_log(Path(path))
    name = _NAME.fullmatch(path.name)
    samples: list[Sample] = []
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        sample = _sample(row, f"{path}, line {number}")
        if (before := lines.setdefault(sample.doc_id, number)) != number:
            raise RunError(
                f"{sample.where}: doc_id {sample.doc_id} is on line {before} too: needed one line per document, from a "
                "task with one filter"
            )
        samples.append(sample)
    if not samples:
        raise RunError(f"{path}: no samples in it")
    results = path.with_name(f"{name['date']}_results.json") if name else None
    if results is None or not results.is_file():
        return SampleLog(path, name["task"] if name else path.stem, samples)
    found = read_object(results, "the results of lmms-eval", {})
    return SampleLog(path, name["task"] if name else path.stem, samples, results, found)


def find_log(path: Path) -> Path:
    """Return the path of a sample log: a file, or the only sample log in a folder.

    Raises:
        RunError: The folder has none or several.
    """
    if not path.is_dir():
        return path
    found = sorted(each for each in path.rglob("*.jsonl") if _NAME.fullmatch(each.name))
    if len(found) != 1:
        listed = f": {', '.join(str(each.relative_to(path)) for each in found[:8])}" if found else ""
        raise RunError(f"{path}: needed one *_samples_*.jsonl, got a folder with {len(found)}{listed}")
    return found[0]


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(line, f"{path}, line {number}")
    except OSError as error:
        raise RunError(f"{path}: cannot read the sample log: {error.strerror}") from error


def _object(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # also invalid UTF-8; a truncated last line is a lost sample
        raise RunError(f"{where}: not readable as JSON: {error}") from error
    if not isinstance(row, dict):
        raise RunError(f"{where}: needed an object, got {type(row).__name__}")
    if missing := [name for name in _NEEDED if name not in row]:
        raise RunError(f"{where}: no {', '.join(missing)}; there are {', '.join(row)}")
    return row


def _sample(row: Row, where: str) -> Sample:
    for name in ("doc_id", "target"):
        if isinstance(row[name], bool) or not isinstance(row[name], str | int | float):
            raise RunError(f"{where}: {name} must be text or a number, got {shorten(row[name])}")
    added = row.get("token_counts")
    added = added[0] if isinstance(added, list) and added and isinstance(added[0], dict) else {}
    answer = _answer(row["filtered_resps"], where)
    error = str(added.get("error") or "")
    if not error and (answer is None or not answer.strip()):
        error = NOT_ANSWERED
    tokens = added.get("visual_tokens")
    repeated = [value for name, value in row.items() if isinstance(value, dict) and name not in _OWN_FIELDS]
    own = [row["doc"]] if isinstance(row.get("doc"), dict) else []
    return Sample(
        where, str(row["doc_id"]), str(row["target"]).strip(),
        prompt=row["input"] if isinstance(row.get("input"), str) else "",
        answer=None if error else answer,
        error=error,
        visual_tokens=tokens if isinstance(tokens, int) else None,
        facts=(*own, *repeated, added),
    )  # fmt: skip


def _answer(found: Any, where: str) -> str | None:
    """Return the only answer of a line; None if there is none."""
    if isinstance(found, list) and len(found) <= 1:
        found = found[0] if found else None
    if found is None or isinstance(found, str):
        return found
    what = "several" if isinstance(found, list) else shorten(found)
    if isinstance(found, list) and any(isinstance(each, list) for each in found):
        what = "likelihoods: a task that compares likelihoods has no answers to import"
    raise RunError(f"{where}: filtered_resps must be one answer, got {what}")
