"""Read output folders of the published code (`merge.jsonl`): the prediction for each question of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sfllava.published.literal import parse_value
from sfllava.types import Question, SfllavaError

# benchmark -> its folders under OUTPUT_DIR and TEMP_DIR, by type of question ("" where there is one type)
FOLDERS: dict[str, dict[str, str]] = {
    "msvd": {"": "MSVD_Zero_Shot_QA"},
    "msrvtt": {"": "MSRVTT_Zero_Shot_QA"},
    "tgif": {"": "TGIF_Zero_Shot_QA"},
    "activitynet": {"": "Activitynet_Zero_Shot_QA"},
    "nextqa": {"": "NExTQA"},
    "egoschema": {"": "EgoSchema"},
    "intentqa": {"": "IntentQA"},
    "vcgbench": {
        "generic": "Video_ChatGPT/generic",
        "temporal": "Video_ChatGPT/temporal_understanding",
        "consistency": "Video_ChatGPT/consistency",
    },
}
_Key = tuple[str, str, tuple[str, ...], str]


class OutputError(SfllavaError):
    """An output folder that cannot be read; the message names it."""


@dataclass(frozen=True)
class PublishedQuestion:
    """The question that one row of an output answers, or a pair of them."""

    questions: tuple[Question, ...]

    @property
    def key(self) -> str:
        """The question's key, or what the keys of a pair have in common"""
        first = self.questions[0].key
        return first.rpartition("/")[0] if len(self.questions) == 2 else first


@dataclass
class Outputs:
    """Predictions by question key, the line of each, and the rows that could not be used, with reasons."""

    predictions: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    bad: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


class QuestionIndex:
    """Finds the question of a row by type, id, text and answer, since rows do not name the video."""

    def __init__(self, questions: Sequence[Question], parts: Sequence[str]) -> None:
        groups: dict[str, list[Question]] = {}
        for question in questions:
            pair = "consistency" in parts and question.type == "consistency"
            groups.setdefault(question.key.rpartition("/")[0] if pair else question.key, []).append(question)
        self.asked = [PublishedQuestion(tuple(group)) for group in groups.values()]
        self._found: dict[_Key, list[PublishedQuestion]] = {}
        self._answers: dict[tuple[str, str, tuple[str, ...]], str] = {}
        for asked in self.asked:
            first = asked.questions[0]
            texts = tuple(question.text for question in asked.questions)
            part = first.type if first.type in parts else ""
            self._found.setdefault((part, first.id, texts, first.answer), []).append(asked)
            self._answers[part, first.id, texts] = first.answer

    def find(self, part: str, id: str, texts: tuple[str, ...], answer: str) -> PublishedQuestion:
        """Return the question that matches, or raise ValueError with the reason."""
        found = self._found.get((part, id, texts, answer), [])
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{len(found)} questions have id {id!r}, this text and this answer")
        if (part, id, texts) in self._answers:
            raise ValueError(f"question {id!r}: needed the answer {self._answers[part, id, texts]!r}, got {answer!r}")
        raise ValueError(f"no question of the benchmark has id {id!r} and the text {' / '.join(texts)[:120]!r}")


def find_outputs(folder: Path, benchmark: str, config_name: str | None = None) -> dict[str, Path]:
    """Find merge.jsonl for each type of question.

    Args:
        folder: The folder of merge.jsonl, or OUTPUT_DIR, which has DATASET/CONFIG_NAME.
        benchmark: The benchmark's name.
        config_name: CONFIG_NAME; None if there is one.

    Raises:
        OutputError: There is no such file, or there are several configurations.
    """
    folders = FOLDERS.get(benchmark, {"": ""})
    if (folder / "merge.jsonl").is_file():
        return {_part_of(folder, folders): folder / "merge.jsonl"}
    found = {part: _below(folder, place, config_name) for part, place in folders.items()}
    names = sorted({path.parent.name for paths in found.values() for path in paths})
    if len(names) > 1:
        raise OutputError(f"{folder}: outputs of several configs; name one with --config-name: {', '.join(names)}")
    if not names:
        places = ", ".join(f"{place}/{config_name or '*'}" for place in folders.values())
        raise OutputError(f"{folder}: no merge.jsonl there, nor in {places} below it")
    return {part: paths[0] for part, paths in found.items() if paths}


def read_outputs(files: dict[str, Path], index: QuestionIndex) -> Outputs:
    """Read merge.jsonl files. Rows that cannot be used are listed; of repeated rows the first counts."""
    outputs = Outputs()
    for part, path in files.items():
        for number, line in _lines(path):
            outputs.rows += 1
            where = f"{path}, line {number}"
            try:
                row = parse_value(line.decode("utf-8"))
                asked, predictions = _read_row(row, part, index)
            except ValueError as error:  # also of UTF-8
                outputs.bad.append(f"{where}: {' '.join(str(error).split())[:300]}")
                continue
            if asked.questions[0].key in outputs.predictions:
                before = [outputs.predictions[question.key] for question in asked.questions]
                other = "the same prediction" if before == predictions else "another prediction; the first counts"
                outputs.repeated.append(f"{where}: {asked.key} again, with {other}")
                continue
            for question, text in zip(asked.questions, predictions):
                outputs.predictions[question.key] = text
                outputs.places[question.key] = where
    return outputs


def scalar(row: dict[str, Any], name: str) -> str:
    """Return a text or number field as text, or raise ValueError."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name}: needed text, got {_short(value) if name in row else 'no such field'}")
    return str(value)


def text(row: dict[str, Any], name: str) -> str:
    """Return a text field, or raise ValueError."""
    if not isinstance(row.get(name), str):
        raise ValueError(f"{name}: needed text, got {_short(row[name]) if name in row else 'no such field'}")
    return row[name]


def _read_row(row: Any, part: str, index: QuestionIndex) -> tuple[PublishedQuestion, list[str]]:
    if not isinstance(row, dict):
        raise ValueError(f"needed an object, got {_short(row)}")
    if isinstance(row.get("question"), list | tuple):
        texts = tuple(row["question"])
        if len(texts) != 2 or not all(isinstance(each, str) for each in texts):
            raise ValueError(f"question: needed one text or two, got {_short(row['question'])}")
        predictions = [text(row, "pred1"), text(row, "pred2")]
    else:
        texts, predictions = (scalar(row, "question"),), [text(row, "pred")]
    asked = index.find(part, scalar(row, "id"), texts, scalar(row, "answer"))
    options = asked.questions[0].options
    if options and "candidates" in row:  # a letter means something else where the order differs
        got = row["candidates"]
        if not isinstance(got, list | tuple) or tuple(map(str, got[: len(options)])) != options:
            raise ValueError(f"candidates: needed {_short(list(options))}, got {_short(got)}")
    return asked, predictions


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def _part_of(folder: Path, folders: dict[str, str]) -> str:
    if len(folders) == 1:
        return next(iter(folders))
    names = {PurePosixPath(place).name: part for part, place in folders.items()}
    if part := next((names[name] for name in reversed(folder.resolve().parts) if name in names), None):
        return part
    raise OutputError(f"{folder}: which part is it? Needed a path with one of {', '.join(names)} in it")


def _below(folder: Path, place: str, config_name: str | None) -> list[Path]:
    for tail in tails(place):
        found = sorted((folder / tail).glob("*/merge.jsonl"))
        if found := [path for path in found if config_name in (None, path.parent.name)]:
            return found
    return []


def tails(place: str) -> list[str]:
    """Return the paths at which a folder may be below the given one: whole, without its first part, and so on."""
    parts = PurePosixPath(place).parts
    whole = ["/".join(parts[i:]) for i in range(len(parts))]
    return whole if len(parts) > 1 else [*whole, ""]


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 100 else shown[:97] + "..."
