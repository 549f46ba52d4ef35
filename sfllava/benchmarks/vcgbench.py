"""VCGBench (Maaz et al., 2023): descriptions of ActivityNet videos.

Generic and temporal questions, and consistency pairs: two wordings of one question, whose predictions are judged
together. A pair is two questions here, whose keys end in /1 and /2.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sfllava.benchmarks.base import BenchmarkError, Spec
from sfllava.benchmarks.files import read_rows, to_question
from sfllava.types import Question, Task

# type -> its CSV files, or the one JSON file of the published code's preparation
_FILES = {
    "generic": (("Generic_QA.csv",), "Video-ChatGPT-generic_val_qa.json"),
    "temporal": (("Temporal_QA.csv",), "Video-ChatGPT-temporal_understanding_val_qa.json"),
    "consistency": (("Consistency_QA1.csv", "Consistency_QA2.csv"), "Video-ChatGPT-consistency_val_qa.json"),
}


def read_vcgbench(folder: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """The questions of a folder that has all of the benchmark's files."""
    if not folder.is_dir():
        raise BenchmarkError(f"{folder}: needed the folder with VCGBench's question files")
    questions, files = [], []
    for kind, (tables, prepared) in _FILES.items():
        paths = [folder / prepared] if (folder / prepared).exists() else [folder / table for table in tables]
        read = [read_rows(path) for path in paths]
        files += [file for _, part in read for file in part]
        if len({len(rows) for rows, _ in read}) != 1:
            raise BenchmarkError(
                f"{paths[1]}: needed {len(read[0][0])} rows as in {paths[0].name}, got {len(read[1][0])}"
            )
        for i, rows in enumerate(zip(*(rows for rows, _ in read))):
            where = f"{paths[-1]}, row {i + 1}"
            if kind == "consistency":
                rows = _pair(rows, where)
            for j, row in enumerate(rows, 1):
                key = f"{name}/{kind}/{i}" + (f"/{j}" if kind == "consistency" else "")
                questions.append(replace(to_question(row, key, task, where), type=kind))
    return questions, files


def _pair(rows: tuple[dict, ...], where: str) -> tuple[dict, ...]:
    if len(rows) == 1:
        texts = rows[0].get("question")
        if not isinstance(texts, list) or len(texts) != 2:
            raise BenchmarkError(f"{where}: question must be a pair")
        return tuple({**rows[0], "question": text} for text in texts)
    if rows[0].get("question_id") != rows[1].get("question_id"):
        raise BenchmarkError(
            f"{where}: needed question_id {rows[0].get('question_id')!r}, got {rows[1].get('question_id')!r}"
        )
    return rows


SPEC = Spec(
    name="vcgbench",
    task="describe",
    questions=("text_generation_benchmark", "VCGBench"),
    videos=("video_qa/Activitynet_Zero_Shot_QA/all_test",),
    question_count=1_996 + 499 + 2 * 499,
    video_count=499,
    read=read_vcgbench,
)
