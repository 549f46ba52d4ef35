"""Reconstruct the questions of an lmms-eval sample log, with options, reference answers and videos.

The log contains the prompt and the reference answer of each document, but not the document. Options are therefore read
from the prompt, and the video from any field that names it, unless the user supplies the task's own data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from sfllava.benchmarks.base import benchmark_names, load_spec
from sfllava.benchmarks.spec import Spec
from sfllava.files import Row, RunError
from sfllava.lmms_bridge.samples import Sample
from sfllava.prompts import LETTERS
from sfllava.types import Question, Task

VIDEO_FIELDS = (
    "video", "video_path", "videoID", "video_id", "video_name", "video_idx", "video_uid", "video_file", "vid",
)  # fmt: skip
_TYPE_FIELDS = (
    "question_type", "task_type", "task_category", "question_category", "category", "type", "dim", "dimension",
)  # fmt: skip
_OPTION_FIELDS = ("options", "candidates", "choices", "option")
_OPTION_LINE = re.compile(r"\s*\(?([A-Z])[.):]\s*(\S.*?)\s*")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.):]?")
_MOST_UNKNOWN = 0.1
"""The largest fraction of reference answers that may be missing from their options, as in some published files."""


def add_documents(samples: Sequence[Sample], rows: Sequence[Row]) -> list[Sample]:
    """Add the task's own data to its samples.

    Args:
        samples: The samples.
        rows: The documents; a sample belongs to row `doc_id`.

    Raises:
        RunError: There is no such document, or its question is not in the prompt.
    """
    found = []
    for sample in samples:
        number = int(sample.doc_id) if sample.doc_id.isdecimal() else -1
        if not 0 <= number < len(rows):
            raise RunError(f"{sample.where}: doc_id {sample.doc_id} is not among the {len(rows)} rows of the questions")
        row = rows[number]
        question = str(row.get("question") or "")
        if question.strip() not in sample.prompt:
            raise RunError(
                f"{sample.where}: the prompt does not contain the question of row {number + 1}, {question[:80]!r}: "
                "needed the task's own data, in the original order"
            )
        found.append(replace(sample, facts=(row, *sample.facts)))
    return found


def find_benchmark_of(task: str, samples: Sequence[Sample], name: str | None = None) -> Spec:
    """Find the benchmark that scores a task of lmms-eval.

    Args:
        task: The task.
        samples: Its samples.
        name: The name of a benchmark to use instead.

    Returns:
        The benchmark whose name is a prefix of the task's name, if its questions are of the same kind; otherwise
        `choice` if all samples have options, and `open` if none has.

    Raises:
        RunError: Only some of the samples have options.
    """
    if name is not None:
        return load_spec(name)
    options = [bool(read_options(sample)) for sample in samples]
    if any(options) and not all(options):
        have, lack = samples[options.index(True)].where, samples[options.index(False)].where
        raise RunError(
            f"{lack}: no options in the prompt, unlike {have}; --benchmark open treats all questions as open-ended"
        )
    kind = "choice" if all(options) else "open"
    called = [name for name in benchmark_names() if task == name or task.startswith(f"{name}_")]
    fitting = [spec for spec in map(load_spec, sorted(called, key=len, reverse=True)) if spec.task == kind]
    return fitting[0] if fitting else load_spec(kind)


def make_questions(task: str, samples: Sequence[Sample], spec: Spec) -> tuple[list[Question], list[str]]:
    """Make the questions of a log.

    Args:
        task: The task of lmms-eval; each key begins with it.
        samples: The samples of the task.
        spec: The benchmark that scores them.

    Returns:
        One question per sample, and warnings about information that the log does not have.

    Raises:
        RunError: The benchmark needs options and a sample has none, or its reference answer is not among them.
    """
    choice = spec.task == "choice"
    options = [read_options(sample) if choice else () for sample in samples]
    if choice and (without := [s for s, found in zip(samples, options) if not found]):
        raise RunError(f"{without[0].where}: {spec.name} needs options, but the prompt has none")
    indices, warnings = _answer_indices(samples, options) if choice else ([None] * len(samples), [])
    yes_or_no = spec.task == "open" and all(sample.target.strip().lower() in ("yes", "no") for sample in samples)
    kind: Task = "yes_no" if yes_or_no else spec.task
    videos, unnamed = _videos(samples, [f"{task}/{sample.doc_id}" for sample in samples])
    if unnamed:
        warnings.append(
            f"{unnamed:,} of {len(samples):,} samples do not name their video: each counts as a separate video, so "
            "intervals treat the questions as independent; --questions with the task's data supplies the names"
        )
    questions = [
        Question(
            _question_text(sample, bool(found)),
            key=f"{task}/{sample.doc_id}",
            video=video,
            answer=sample.target if index is None else found[index],
            options=found,
            answer_index=index,
            id=_first(sample, ("question_id", "qid", "id")) or sample.doc_id,
            type=_first(sample, _TYPE_FIELDS),
            task=kind,
        )
        for sample, found, index, video in zip(samples, options, indices, videos)
    ]
    return questions, warnings


def read_options(sample: Sample) -> tuple[str, ...]:
    """Return the options of a sample without letters: from the document, or the last list in the prompt."""
    for facts in sample.facts:
        for name in _OPTION_FIELDS:
            value = facts.get(name)
            if isinstance(value, list) and len(value) > 1 and all(isinstance(each, str) for each in value):
                return _without_letters(value)
    return _options_in(sample.prompt)[1]


def _without_letters(options: Sequence[str]) -> tuple[str, ...]:
    found = [_OPTION_LINE.fullmatch(option) for option in options]
    if all(match and match[1] == letter for match, letter in zip(found, LETTERS)):
        return tuple(match[2] for match in found if match)
    return tuple(options)


def _options_in(prompt: str) -> tuple[str, tuple[str, ...]]:
    """Split a prompt into the text before its last lines "A. ...", "B. ...", and the options in these lines, if any."""
    lines = prompt.splitlines()
    best: tuple[int, list[str]] = (len(lines), [])
    start, found = 0, list[str]()
    for number, line in enumerate(lines):
        match = _OPTION_LINE.fullmatch(line)
        if match and match[1] == "A":
            start, found = number, []
        if match and len(found) < len(LETTERS) and match[1] == LETTERS[len(found)]:
            found.append(match[2])
            if len(found) > 1:
                best = start, found
        elif line.strip():
            found = []
    return "\n".join(lines[: best[0]]).strip(), tuple(best[1])


def _question_text(sample: Sample, has_options: bool) -> str:
    own = next((facts["question"] for facts in sample.facts if isinstance(facts.get("question"), str)), "")
    if own and (sample.facts[0].get("question") == own or not sample.prompt):
        return _options_in(own)[0] or own
    return (_options_in(sample.prompt)[0] if has_options else "") or sample.prompt


def _answer_indices(
    samples: Sequence[Sample], options: Sequence[tuple[str, ...]]
) -> tuple[list[int | None], list[str]]:
    """Read all reference answers as letters, texts or numbers from 0, whichever fits most of them."""
    read = {
        name: [reader(sample.target, found) for sample, found in zip(samples, options)]
        for name, reader in _READINGS.items()
    }
    known = {name: sum(index is not None for index in indices) for name, indices in read.items()}
    best = max(known, key=lambda name: known[name])  # in a tie, the first one
    if best == "text" and known["number"] == known["text"] and read["number"] != read["text"]:
        i = next(i for i, pair in enumerate(zip(read["text"], read["number"])) if pair[0] != pair[1])
        raise RunError(
            f"{samples[i].where}: target {samples[i].target!r} may be the text or the number of an option among "
            f"{', '.join(map(repr, options[i]))}: use --questions with the task's data, or --benchmark open"
        )
    unknown = [sample for sample, index in zip(samples, read[best]) if index is None]
    if not unknown:
        return read[best], []
    example = f"{unknown[0].where}: target {unknown[0].target!r} is not among its options"
    if len(unknown) > _MOST_UNKNOWN * len(samples):
        raise RunError(
            f"{example}, and so for {len(unknown) - 1} others; --benchmark open treats all questions as open-ended"
        )
    return read[best], [f"{example}, so every answer is wrong ({len(unknown)} such samples)"]


def _by_letter(target: str, options: tuple[str, ...]) -> int | None:
    match = _LETTER.fullmatch(target)
    index = LETTERS.index(match[1].upper()) if match else len(options)
    return index if index < len(options) else _by_labelled_text(target, options)


def _by_labelled_text(target: str, options: tuple[str, ...]) -> int | None:
    match = _OPTION_LINE.fullmatch(target)
    index = LETTERS.index(match[1]) if match else len(options)
    return index if match and index < len(options) and options[index] == match[2] else None


def _by_text(target: str, options: tuple[str, ...]) -> int | None:
    texts = [option.strip() for option in options]
    return texts.index(target) if target in texts else None


def _by_number(target: str, options: tuple[str, ...]) -> int | None:
    return int(target) if re.fullmatch(r"[0-9]{1,2}", target) and int(target) < len(options) else None


_READINGS: Mapping[str, Callable[[str, tuple[str, ...]], int | None]] = {
    "letter": _by_letter, "text": _by_text, "number": _by_number,
}  # fmt: skip


def _videos(samples: Sequence[Sample], keys: Sequence[str]) -> tuple[list[str], int]:
    """Return the video of each sample, or its key if it names no video, and the number of the latter.

    Paths are relative to the common parent folder, so that logs of two machines have the same names.
    """
    names = [_first(sample, VIDEO_FIELDS) for sample in samples]
    folders = {str(PurePath(name).parent) for name in names if PurePath(name).is_absolute()}
    common = os.path.commonpath(folders) if folders else ""
    named = [str(PurePath(n).relative_to(common)) if PurePath(n).is_absolute() else n for n in names]
    return [name or key for name, key in zip(named, keys)], sum(not name for name in named)


def _first(sample: Sample, fields: Sequence[str]) -> str:
    """Return the first of these fields that is text or a number in the sample's facts, as text."""
    for facts in sample.facts:
        for name in fields:
            value: Any = facts.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                return str(value)
    return ""
