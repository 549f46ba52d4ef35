"""Read the replies of one run by several protocols; no model is needed. `protocol_tables` has the tables."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava.evaluators.protocols import load_protocol, protocol_names
from sfllava.evaluators.protocols.base import YES_NO, Draw, Protocol, Reading, right_index
from sfllava.files import printable
from sfllava.prompts import LETTERS
from sfllava.runs.identity import question_of
from sfllava.runs.run_folder import RunError, read_rows, read_run
from sfllava.types import Question, SfllavaError

READABLE = ("choice", "yes_no", "caption_matching")
"""The tasks whose replies name an option; others need a judge."""
_FLAGS = ("correct", "parsed", "counted", "guessed")
NONE = -1
"""In place of an index where there is none."""


@dataclass(frozen=True)
class Readings:
    """How protocols read the replies of a run.

    Attributes:
        benchmark: The name of the benchmark.
        rows: One row per question and setting, with key, setting, video, question, answer, reply (None for a question
            that failed), labels (of the options), right (the index of the right one, or -1) and groups (its type
            among them).
        by_protocol: For each protocol, as many rows with correct, parsed, counted, guessed and chosen (an index, or
            -1); see `evaluators.protocols.base.Reading`.
        protocols: The protocols.
        seed: The seed of guesses.
        need_judge: Questions of the run that no protocol reads without a judge; they are in no number.
        not_asked: Questions that the run has not asked yet, over all settings.
    """

    benchmark: str
    rows: pd.DataFrame
    by_protocol: dict[str, pd.DataFrame]
    protocols: tuple[Protocol, ...]
    seed: int
    need_judge: int
    not_asked: int


def read_by_protocols(
    run: str | Path, protocols: Sequence[str] = (), setting: str | None = None, seed: int = 0
) -> Readings:
    """Read the replies of a run by protocols.

    Args:
        run: The run folder.
        protocols: Names of protocols. Default: all.
        setting: Read the replies of this setting only.
        seed: Seed of the guesses of those protocols that guess. A guess depends on the seed, the question and the
            setting, so that protocols with one rule guess the same.

    Raises:
        SfllavaError: There is no such run, protocol or setting, the run has no answers yet, or its questions have no
            options to read.
    """
    if seed < 0:
        raise SfllavaError(f"the seed must be at least 0, got {seed}")
    chosen = tuple(load_protocol(name) for name in dict.fromkeys(protocols or protocol_names()))
    identity = read_run(run)["identity"]
    names = [entry["name"] for entry in identity["settings"]]
    if setting is not None and setting not in names:
        raise RunError(f"{run}: no setting is called {setting!r}; choose from {', '.join(names)}")
    table = _Table(identity["benchmark"], chosen, seed)
    for row in read_rows(run):
        if setting is None or row["setting"] == setting:
            table.append(row)
    if not table.rows:
        tasks = ", ".join(sorted(table.skipped))
        raise RunError(
            f"{run}: needed questions with options, got {tasks} questions: they need a judge"
            if tasks
            else f"{run}: no answers yet"
        )
    skipped = sum(table.skipped.values())
    asked = identity["questions"] * (len(names) if setting is None else 1)
    waiting = max(0, asked - len(table.rows) - skipped)
    return Readings(identity["benchmark"], *table.tables(), chosen, seed, skipped, waiting)


class _Table:
    """The rows of `Readings`, in the order of the run."""

    def __init__(self, benchmark: str, protocols: Sequence[Protocol], seed: int) -> None:
        self._benchmark, self._protocols, self._seed = benchmark, protocols, seed
        self.rows: list[dict[str, Any]] = []
        self.skipped: dict[str, int] = {}
        self._flags = {p.name: {flag: array("b") for flag in _FLAGS} for p in protocols}
        self._chosen = {p.name: array("b") for p in protocols}

    def append(self, row: dict[str, Any]) -> None:
        question = question_of(row)
        if question.task not in READABLE:
            self.skipped[question.task] = self.skipped.get(question.task, 0) + 1
            return
        reply = None if row["error"] else row["prediction"]
        right = right_index(question)
        self.rows.append(
            {"key": question.key, "setting": row["setting"], "video": question.video, "question": question.text}
            | {"answer": question.answer, "reply": reply, "labels": _labels(question)}
            | {"right": NONE if right is None else right, "groups": {"type": question.type, **question.groups}}
        )
        draw = _draw(self._seed, question.key, row["setting"])
        for protocol in self._protocols:
            self._add(protocol.name, protocol.read(self._benchmark, question, reply, draw))

    def _add(self, protocol: str, reading: Reading) -> None:
        for flag in _FLAGS:
            self._flags[protocol][flag].append(getattr(reading, flag))
        self._chosen[protocol].append(NONE if reading.chosen is None else reading.chosen)

    def tables(self) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
        by_protocol = {}
        for name, flags in self._flags.items():
            columns = {flag: np.array(values, dtype=bool) for flag, values in flags.items()}
            by_protocol[name] = pd.DataFrame(columns | {"chosen": np.array(self._chosen[name], dtype=int)})
        return pd.DataFrame(self.rows, dtype=object), by_protocol  # as texts, pandas refuses lone surrogates


def _labels(question: Question) -> tuple[str, ...]:
    if question.task == "yes_no":
        return YES_NO
    if question.task == "caption_matching":
        return tuple(printable(option.partition(": ")[0]) for option in question.options)
    return tuple(LETTERS[: len(question.options)])


def _draw(seed: int, key: str, setting: str) -> Draw:
    def draw(options: int) -> int:
        place = zlib.crc32(f"{key}\n{setting}".encode("utf-8", "backslashreplace"))
        return int(np.random.default_rng([seed, place]).integers(options))

    return draw
