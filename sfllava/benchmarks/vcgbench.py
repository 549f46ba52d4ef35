"""VCGBench (Maaz et al., 2023): descriptions of ActivityNet videos.

It has generic questions, temporal questions and consistency pairs: two wordings of one question, whose predictions are
judged together. A pair is two questions here, whose keys end in /1 and /2.

The authors' page links to OneDrive, whose files cannot be downloaded by plain HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.question_files import to_question
from sfllava.benchmarks.remote_files import Downloads, Videos
from sfllava.benchmarks.rows import BenchmarkError, Row, read_rows
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.types import Question, Task

# type -> its CSV files, and the one JSON file that the published code prepares
_FILES = {
    "generic": (("Generic_QA.csv",), "Video-ChatGPT-generic_val_qa.json"),
    "temporal": (("Temporal_QA.csv",), "Video-ChatGPT-temporal_understanding_val_qa.json"),
    "consistency": (("Consistency_QA1.csv", "Consistency_QA2.csv"), "Video-ChatGPT-consistency_val_qa.json"),
}


def read_vcgbench(folder: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of a folder that has all of the benchmark's files.

    Args:
        folder: the folder; for each type of question its JSON file counts before its CSV files.
        name: the benchmark's name, with which each key begins.
        task: the questions' task.

    Returns:
        The questions, and the files that were read.

    Raises:
        BenchmarkError: a file is missing or malformed.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{folder}: needed the folder with VCGBench's question files")
    questions, files = [], []
    for kind, (tables, prepared) in _FILES.items():
        paths = [folder / prepared] if (folder / prepared).exists() else [folder / table for table in tables]
        read = [read_rows(path) for path in paths]
        files += [file for _, part in read for file in part]
        for key, row, where in _keyed_rows(f"{name}/{kind}", [rows for rows, _ in read], paths):
            questions.append(replace(to_question(row, key, task, where), type=kind))
    return questions, files


def _keyed_rows(prefix: str, tables: list[list[Row]], paths: list[Path]) -> Iterator[tuple[str, Row, str]]:
    """Yield key, row and place (for errors) of each question of one type."""
    if len(tables[0]) != len(tables[-1]):
        raise BenchmarkError(f"{paths[-1]}: needed {len(tables[0])} rows as in {paths[0].name}, got {len(tables[-1])}")
    for i, rows in enumerate(zip(*tables)):
        where = f"{paths[-1]}, row {i + 1}"
        if not prefix.endswith("/consistency"):
            yield f"{prefix}/{i}", rows[0], where
            continue
        for j, row in enumerate(_pair(rows, where), 1):
            yield f"{prefix}/{i}/{j}", row, where


def _pair(rows: tuple[Row, ...], where: str) -> tuple[Row, ...]:
    """The two rows of a consistency pair: one of each CSV file, or made of the pair of texts in a JSON row."""
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
    headline=Headline("average", ("rubric",)),
    # correctness, detail, context; temporal understanding; consistency of a pair
    rubrics={"generic": ("CI", "DO", "CU"), "temporal": ("TU",), "consistency": ("CO",)},
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "text_generation_benchmark/Generic_QA.csv",
                782_086,
                "26a664726a891e207221a605079708c327523b855e2a489354ec0bc96dcea5d4",
            ),
            ig_vlm_file(
                "text_generation_benchmark/Temporal_QA.csv",
                222_907,
                "705e1669050a280a3f6b593ee653b2f1504d5d64b010ed985558bebfc99b74ac",
            ),
            ig_vlm_file(
                "text_generation_benchmark/Consistency_QA1.csv",
                111_357,
                "a5358c1a26dc4b7d65e889098e3835f185514319cd2d3fc929ae81564c299a48",
            ),
            ig_vlm_file(
                "text_generation_benchmark/Consistency_QA2.csv",
                117_623,
                "af67c59a7f10bf8ba2236317f99758d34d80bdb986b4d993cbfa91e3fe9bd7f1",
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="that of ActivityNet's: YouTube videos, which belong to their owners (unchecked)",
            place="https://github.com/mbzuai-oryx/Video-ChatGPT/tree/main/quantitative_evaluation",
            size="size unknown, 499 of ActivityNet's videos",
        ),
    ),
)
