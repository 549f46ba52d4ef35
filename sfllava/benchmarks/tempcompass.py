"""TempCompass (Liu et al., 2024): changes over time, as multiple-choice, yes/no and caption-matching questions.

Each question is about one of five dimensions: action, speed, direction, order, and change of an attribute. The fourth
form, captioning, is a separate benchmark, since it needs a judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfllava.benchmarks.choices import find_text, split_lettered
from sfllava.benchmarks.question_files import make_question
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, github_url, hub_url
from sfllava.benchmarks.rows import BenchmarkError, Row, read_json, read_rows, require
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.types import Question, Task

VIDEO_COUNT = 410
_TASKS: dict[str, Task] = {"multi-choice": "choice", "yes_no": "yes_no", "caption_matching": "caption_matching"}
_CAPTIONING: dict[str, Task] = {"captioning": "captioning"}


def read_tempcompass(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read a folder with one file per form of question, or the file of one form.

    Args:
        path: the folder, with FORM.json as published or FORM/test-00000-of-00001.parquet as for lmms-eval; or a file.
        name: the benchmark's name; each key begins with it.
        task: `captioning` for that form; any other task for the other three forms.

    Returns:
        The questions, and the files that were read.

    Raises:
        BenchmarkError: a file is missing or malformed.
    """
    tasks = _CAPTIONING if task == "captioning" else _TASKS
    files = _find_files(path, list(tasks))
    questions: list[Question] = []
    for form, file in files.items():
        for i, (row, where) in enumerate(_rows(file)):
            questions.append(_question(row, form, tasks[form], f"{name}/{form}/{i}", where))
    if not questions:
        raise BenchmarkError(f"{path}: no questions in it")
    return questions, list(files.values())


def _find_files(path: Path, forms: list[str]) -> dict[str, Path]:
    """Return the file of each form in a folder, or the form of a single file."""
    if not path.is_dir():
        form = next((form for form in forms if form in (path.stem, path.parent.name)), None)
        if form is None:
            raise BenchmarkError(f"{path}: needed a file called {', '.join(f'{form}.json' for form in forms)}")
        return {form: path}
    found = {}
    for form in forms:
        places = (path / f"{form}.json", path / f"{form}.parquet", path / form / "test-00000-of-00001.parquet")
        found[form] = next((place for place in places if place.is_file()), None)
        if found[form] is None:
            raise BenchmarkError(f"{path}: needed {form}.json, the questions of one form")
    return found


def _rows(file: Path) -> Iterator[tuple[Row, str]]:
    """Yield each question as a row with video and dimension, and its location for error messages."""
    columns = ("video_id", "dim", "question", "answer")
    if file.suffix.lower() != ".json":
        for i, row in enumerate(read_rows(file, columns)[0], 1):
            require(row, columns, where := f"{file}, row {i}")
            yield row, where
        return
    for video, dimensions in _entries(read_json(file), dict, f"{file}", "an object of videos"):
        for dimension, asked in _entries(dimensions, dict, f"{file}, video {video}", "an object of dimensions"):
            where = f"{file}, video {video}, {dimension}"
            for i, row in _entries(asked, list, where, "a list of questions"):
                _entries(row, dict, f"{where}, question {i}", "an object")
                require(row, ("question", "answer"), f"{where}, question {i}")
                yield row | {"video_id": video, "dim": dimension}, f"{where}, question {i}"


def _entries(value: Any, kind: type, where: str, needed: str) -> list[tuple[Any, Any]]:
    """Return the items of an object, or the elements of a list numbered from 1."""
    if not isinstance(value, kind):
        raise BenchmarkError(f"{where}: needed {needed}, got {type(value).__name__}")
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value, 1))


def _question(row: Row, form: str, task: Task, key: str, where: str) -> Question:
    text, answer, options = str(row["question"]), str(row["answer"]), []
    if task == "choice":
        text, options = split_lettered(text, where)
        # the answer repeats the option's line
        letter = answer.strip()[:1]
        answer = next((o for label, o in zip("ABCDEFGH", options) if label == letter and answer.endswith(o)), answer)
    elif task == "caption_matching":
        text, *options = text.strip().split("\n")
        if len(options) < 2:
            raise BenchmarkError(f"{where}: needed a question and two captions on separate lines, got {text!r:.80}")
    elif task == "yes_no" and answer.strip().lower() not in ("yes", "no"):
        raise BenchmarkError(f"{where}: answer must be yes or no, got {answer!r:.80}")
    return make_question(
        where,
        key=key,
        text=text,
        video=row["video_id"],
        answer=answer,
        options=tuple(options),
        answer_index=find_text(answer, options),
        type=str(row["dim"]),
        groups={"form": form, "dimension": str(row["dim"])},
        task=task,
    )


# The latest commit of the repository for the questions, the latest revision of the Hub data set for the videos.
_REVISION = "e1b463166400633e6061962d890a9ae85db29f70"
_DOWNLOADS = Downloads(
    questions=tuple(
        RemoteFile(f"tempcompass/{path}", github_url("llyx97/TempCompass", _REVISION, path), size, sha256)
        for path, size, sha256 in (
            (
                "questions/multi-choice.json",
                441_771,
                "c5bbdd249bbeca2d8fc70adec639509d8b9cb6d0bb3edfe4b838477a5efc3bbd",
            ),
            ("questions/yes_no.json", 405_703, "f10910c595a30aff3104c48b9cddcd88e71d512ba14dd7eff77d30e39807768d"),
            (
                "questions/caption_matching.json",
                524_731,
                "ef8038edfbcd713e14a361cb617bc4fe815e3cafffe003cc024bcac86c9d764d",
            ),
            (
                "questions/captioning.json",
                1_500_847,
                "49815114d9753ab26a63d410892950fb4577b4def096e7e4e523ac91fb98f1eb",
            ),
            ("meta_info.json", 190_924, "72144a7cb5aba97d12c3148ec734f7c8f27a04f6b3a7396ef41003a0a7178419"),
        )
    ),
    licence="CC BY-NC 4.0, academic research only",
    videos=Videos(
        licence="CC BY-NC 4.0, academic research only",
        place="https://huggingface.co/datasets/lmms-lab/TempCompass",
        size="418 MB",
        files=(
            RemoteFile(
                "tempcompass/tempcompass_videos.zip",
                hub_url("lmms-lab/TempCompass", "c8a67d88a3bc6fd4b2f9ae2f9e112668fbe05722", "tempcompass_videos.zip"),
                418_421_516,
                "fb7c8a2b742a3d10ae1bd1a6183fb602edb346a4c7fd91c631dba46b753e0f0b",
                unpack="tempcompass",  # the archive contains videos/ID.mp4 (according to other tools)
            ),
        ),
    ),
)

SPEC = Spec(
    name="tempcompass",
    task="choice",
    questions=("tempcompass/questions", "TempCompass/questions", "tempcompass", "TempCompass"),
    videos=("tempcompass/videos", "TempCompass/videos"),
    question_count=1_580 + 2_453 + 1_503,
    video_count=VIDEO_COUNT,
    counts={
        "multi-choice.json": (1_580, VIDEO_COUNT),
        "yes_no.json": (2_453, VIDEO_COUNT),
        "caption_matching.json": (1_503, VIDEO_COUNT),
    },
    read=read_tempcompass,
    headline=Headline("mean over forms and dimensions", ("form", "dimension")),
    downloads=_DOWNLOADS,
)
