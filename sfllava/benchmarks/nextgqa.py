"""NExT-GQA (Xiao et al., 2024): questions of NExT-QA that can be answered from a moment of the video.

This is the test set; for the validation set, pass val.csv as the question file.
"""

from __future__ import annotations

from pathlib import Path

from sfllava.benchmarks.choices import find_text
from sfllava.benchmarks.nextqa import SPEC as NEXTQA
from sfllava.benchmarks.nextqa import VIDEOS_FILE
from sfllava.benchmarks.question_files import choice_question, read_table
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, github_url
from sfllava.benchmarks.rows import Row
from sfllava.benchmarks.spec import Spec
from sfllava.types import Question, Task

_OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def read_nextgqa(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of test.csv or val.csv."""
    return read_table(path, name, ("video_id", "qid", "type", "question", "answer", *_OPTIONS), _question)


def _question(row: Row, key: str, where: str) -> Question:
    options, answer = [str(row[column]) for column in _OPTIONS], str(row["answer"])
    return choice_question(
        where,
        options,
        find_text(answer, options),
        answer,
        key=key,
        text=row["question"],
        video=row["video_id"],
        id=str(row["qid"]),
        type=str(row["type"]),
    )


# The videos are NExT-QA's.
_REVISION = "63772e0256ad9e34b83d6a108f1ba2041b924607"
_DOWNLOADS = Downloads(
    questions=tuple(
        RemoteFile(
            f"nextgqa/{name}", github_url("doc-doc/NExT-GQA", _REVISION, f"datasets/nextgqa/{name}"), size, sha256
        )
        for name, size, sha256 in (
            ("val.csv", 638_860, "ac5a1eb1d6dee9cd84ab7f9c94ab345b2404646f24b79ac182cd2aa9e2d424c1"),
            ("test.csv", 1_052_149, "0443ede53f521de4cbfb5e4fb02253926b90f81f62041b18bd17207a3511d114"),
            ("gsub_val.json", 115_228, "4feb23e53102cb2d4779e857ff8f9fd9b552fc38435621406b2ed9b0bf76204b"),
            ("gsub_test.json", 195_500, "0c16c31699238a0f2b8ace45aeed7f193149ce2f011d6ed4f1ef7170ef5d41e9"),
        )
    ),
    licence="MIT",
    videos=Videos(
        licence="Flickr videos (from VidOR and YFCC100M) under Creative Commons licences (unchecked)",
        place="https://huggingface.co/datasets/lmms-lab/NExTQA",
        size="6.5 GB",
        files=(VIDEOS_FILE,),
    ),
)

SPEC = Spec(
    name="nextgqa",
    task="choice",
    questions=("nextgqa/test.csv", "NExT-GQA/datasets/nextgqa/test.csv"),
    videos=("nextgqa/videos", "NExTVideo", "NExT-GQA/NExTVideo", *NEXTQA.videos),
    question_count=5_553,
    video_count=990,
    counts={"test.csv": (5_553, 990), "val.csv": (3_358, 567)},
    read=read_nextgqa,
    types={**NEXTQA.types, "TP": "before and after"},
    downloads=_DOWNLOADS,
)
