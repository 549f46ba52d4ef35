"""Read the judge's files of the published code (`ID.json`, a list of its reply and the question) as verdict rows."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfllava.files import Row
from sfllava.published.literal import parse_value
from sfllava.published.outputs import (
    FOLDERS,
    OutputError,
    Outputs,
    PublishedQuestion,
    QuestionIndex,
    scalar,
    tails,
    text,
)

NOT_JUDGED = "not judged in the published output"
# type of question -> (folder below CONFIG_NAME, rubric); "open" asks for yes or no, the others for a score alone
_RUBRICS: dict[str, tuple[tuple[str, str], ...]] = {
    "": (("", "open"),),
    "generic": (("correctness", "CI"), ("detailed_orientation", "DO"), ("contextual", "CU")),
    "temporal": (("", "TU"),),
    "consistency": (("", "CO"),),
}


@dataclass(frozen=True)
class JudgeFolder:
    """A folder of one judge's files: the type of question they judge, and the rubric."""

    judge: str
    part: str
    rubric: str
    folder: Path


@dataclass
class PublishedVerdicts:
    """The verdict rows of one judge, and the files that could not be used, with reasons."""

    judge: str
    rows: list[Row] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def find_judged(folder: Path, benchmark: str, config_name: str, judge: str | None = None) -> list[JudgeFolder]:
    """Find the folders of judges.

    Args:
        folder: TEMP_DIR, which has DATASET/CONFIG_NAME/JUDGE, or the folder of one judge.
        benchmark: The benchmark's name.
        config_name: CONFIG_NAME.
        judge: The judge's name; None for all below TEMP_DIR, or the folder's.

    Raises:
        OutputError: There are none.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder of judge files")
    parts = FOLDERS.get(benchmark, {"": ""})
    if any(folder.glob("*.json")):
        if len(parts) > 1:
            raise OutputError(f"{folder}: {benchmark} has several rubrics: needed the TEMP_DIR above, not one folder")
        return [JudgeFolder(_name(judge or folder.name, folder), "", "open", folder)]
    sources = []
    for part, place in parts.items():
        for below, rubric in _RUBRICS[part]:
            found = next(
                (path for tail in tails(place) if (path := folder / tail / config_name / below).is_dir()), None
            )
            for each in sorted(found.iterdir()) if found else []:
                if each.is_dir() and judge in (None, each.name) and any(each.glob("*.json")):
                    sources.append(JudgeFolder(_name(each.name, each), part, rubric, each))
    if not sources:
        raise OutputError(
            f"{folder}: no judge files below it; needed {next(iter(parts.values())) or 'DATASET'}/{config_name}/"
            f"{judge or 'JUDGE'}/ID.json"
        )
    return sources


def read_judged(
    sources: list[JudgeFolder], index: QuestionIndex, outputs: Outputs, setting: str
) -> list[PublishedVerdicts]:
    """Return one row per judge, rubric and predicted question: its verdict, or an error.

    A file counts only if it judged the same prediction. Where several questions have one id, the published code keeps
    the file of one of them; the rows of the others say so.
    """
    judged = {source.judge: PublishedVerdicts(source.judge) for source in sources}
    for source in sources:
        result, verdicts = judged[source.judge], {}
        for path in sorted(source.folder.glob("*.json")):
            try:
                asked, row = _read_file(path, source, index, outputs)
            except (ValueError, OSError) as error:
                result.bad.append(f"{path}: {' '.join(str(error).split())[:300]}")
                continue
            verdicts[asked.key] = row
        for asked in index.asked:
            first = asked.questions[0]
            if first.key in outputs.predictions and (not source.part or first.type == source.part):
                verdict = verdicts.get(asked.key) or _verdict(error=NOT_JUDGED)
                key = {"key": asked.key, "setting": setting, "rubric": source.rubric, "judge": source.judge}
                result.rows.append({**key, **verdict})
    return list(judged.values())


def _read_file(
    path: Path, source: JudgeFolder, index: QuestionIndex, outputs: Outputs
) -> tuple[PublishedQuestion, Row]:
    value = parse_value(path.read_bytes().decode("utf-8"))
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], dict):
        raise ValueError("needed a list of the judge's reply and the question")
    reply, about = value
    pair = source.part == "consistency"
    texts = (scalar(about, "q1"), scalar(about, "q2")) if pair else (scalar(about, "q"),)
    predictions = [text(about, name) for name in (("pred1", "pred2") if pair else ("pred",))]
    asked = index.find(source.part, path.stem, texts, scalar(about, "a"))
    if asked.questions[0].key not in outputs.predictions:
        raise ValueError(f"{asked.key}: merge.jsonl has no prediction of it")
    if predictions != [outputs.predictions[question.key] for question in asked.questions]:
        raise ValueError(f"{asked.key}: judged another prediction than merge.jsonl has")
    raw = json.dumps(reply, ensure_ascii=False, default=repr)
    try:
        correct, score = _read_reply(reply, source.rubric)
    except ValueError as error:
        return asked, _verdict(raw=raw, error=str(error), imported=str(path))
    return asked, _verdict(correct, score, raw, imported=str(path))


def _read_reply(reply: Any, rubric: str) -> tuple[bool | None, float]:
    """Read a reply by the published rule: `yes` anywhere in `pred` is right, else `no` is wrong. Fractions are kept."""
    if not isinstance(reply, dict):
        raise ValueError(f"the judge's reply is no object: {str(reply)[:100]!r}")
    correct = None
    if rubric == "open":
        pred = str(reply.get("pred", "")).lower()
        if "yes" not in pred and "no" not in pred:
            raise ValueError(f"the judge's reply says neither yes nor no: {pred[:100]!r}")
        correct = "yes" in pred
    try:
        score = float(scalar(reply, "score"))
    except ValueError as error:
        raise ValueError(f"the judge's reply has no number as score: {str(reply.get('score'))[:100]!r}") from error
    if not math.isfinite(score) or not 0 <= score <= 5:
        raise ValueError(f"the judge's score must be from 0 to 5, got {score}")
    return correct, score


def _verdict(
    correct: bool | None = None,
    score: float | None = None,
    raw: str | None = None,
    error: str | None = None,
    imported: str | None = None,
) -> Row:
    return {"correct": correct, "score": score, "reply": raw or "", "error": error, "imported": imported or True}


def _name(judge: str, folder: Path) -> str:
    if not re.fullmatch(r"\w[\w.-]*", judge):
        raise OutputError(f"{folder}: {judge!r} cannot be the name of a judge's file; give another with --judge")
    return judge
