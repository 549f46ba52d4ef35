"""MLVU (Zhou et al., 2024), the multiple-choice questions of the dev set: seven tasks on long videos.

The original files have an additional blank row. Each task has its own folder of videos; a video of two tasks is in both
folders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sfllava.benchmarks.choices import find_letter, find_text, text_list, without_options
from sfllava.benchmarks.question_files import QuestionsRead, choice_question, describe_flaw, read_table
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, hub_url
from sfllava.benchmarks.rows import BenchmarkError, Row, read_rows, require
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.types import Question, Task

# name of the file and folder of a task -> its numbers of questions and videos
_COUNTS = {
    "1_plotQA": (539, 160),
    "2_needle": (355, 129),
    "3_ego": (352, 84),
    "4_count": (206, 206),
    "5_order": (259, 259),
    "6_anomaly_reco": (200, 200),
    "7_topic_reasoning": (263, 204),
}
_COLUMNS = ("video", "question", "candidates", "answer")
_FLAT_COLUMNS = ("video_name", "question", "candidates", "answer", "task_type", "question_id")


def read_mlvu(path: Path, name: str, task: Task) -> QuestionsRead:
    """Read a folder with the original JSON files, one of these files, or the parquet file of lmms-eval."""
    if path.stem in _COUNTS or any((path / f"{stem}.json").exists() for stem in _COUNTS):
        return read_tasks(path, name, list(_COUNTS), _COLUMNS, _question)
    folders = {task_of(stem): stem for stem in _COUNTS}
    return QuestionsRead(*read_table(path, name, _FLAT_COLUMNS, partial(flat_question, folders), "question_id"))


def read_tasks(
    path: Path,
    name: str,
    stems: Sequence[str],
    columns: Sequence[str],
    make: Callable[[Row, str, str, str], Question],
) -> QuestionsRead:
    """Read the original JSON files of several tasks.

    Args:
        path: the folder of the files, or one of them.
        name: the benchmark's name; each key begins with it.
        stems: the file names without suffix.
        columns: the fields that each row must have.
        make: (row, file name without suffix, key, where) -> the question.

    Returns:
        The questions and the files. Blank rows are left out and reported as flaws.

    Raises:
        BenchmarkError: a file is missing or malformed.
    """
    folder, stems = (path.parent, [path.stem]) if path.is_file() and path.stem in stems else (path, stems)
    questions: list[Question] = []
    files: list[Path] = []
    blank = []
    for stem in stems:
        rows, read = read_rows(folder / f"{stem}.json")
        files += read
        for i, row in enumerate(rows):
            where = f"{read[0]}, row {i + 1}"
            require(row, columns, where)
            if _is_blank(row):
                blank.append(f"{read[0].name}, row {i + 1}")
                continue
            questions.append(make(row, stem, f"{name}/{task_of(stem)}/{i}", where))
    if not questions:
        raise BenchmarkError(f"{path}: no questions in it")
    return QuestionsRead(questions, files, describe_flaw("blank row, left out", blank))


def _is_blank(row: Row) -> bool:
    options = row.get("candidates")
    texts = [row["question"], row["answer"], *(options if isinstance(options, list) else ())]
    return not any(str(text).strip() for text in texts)


def task_of(stem: str) -> str:
    """Return the task of an original file: "needle" of "2_needle"."""
    return stem.partition("_")[2]


def flat_question(folders: dict[str, str], row: Row, key: str, where: str) -> Question:
    """Make a question from a row of lmms-eval's files; its text repeats the options, and its answer is a letter.

    Args:
        folders: task -> its folder of videos, if it has one.
        row, key, where: see `read_table`.
    """
    options, kind = text_list(row["candidates"], "candidates", where), str(row["task_type"])
    return choice_question(
        where,
        options,
        find_letter(str(row["answer"]), options),
        str(row["answer"]),
        key=key,
        text=without_options(str(row["question"]), options),
        video=f"{folders[kind]}/{row['video_name']}" if kind in folders else row["video_name"],
        id=str(row["question_id"]),
        type=kind,
    )


def _question(row: Row, stem: str, key: str, where: str) -> Question:
    options, answer = text_list(row["candidates"], "candidates", where), str(row["answer"])
    index = find_text(answer, options)
    video = f"{stem}/{row['video']}"
    return choice_question(
        where, options, index, answer, key=key, text=row["question"], video=video, type=task_of(stem)
    )


# The Hub page of the main branch lists mlvu/test-00000-of-00001.parquet with the size of this file. We only know the
# short hash of its last commit, 96207eb, so the branch is "main", and the SHA-256 pins the contents.
_DOWNLOADS = Downloads(
    questions=(
        RemoteFile(
            "mlvu/mlvu_dev.parquet",
            hub_url("sy1998/MLVU_dev", "main", "mlvu/test-00000-of-00001.parquet"),
            204_082,
            "1653e54475de8d8ca44cb477542eb5c3072c2897fe001bff90934d825a67b475",
        ),
    ),
    licence="CC BY-NC-SA 4.0 (the authors' MLVU/MVLU)",
    videos=Videos(
        licence="CC BY-NC-SA 4.0, academic research only; the videos belong to their owners; you must accept terms",
        place="https://huggingface.co/datasets/MLVU/MVLU",
        size="hundreds of GB (unchecked)",
    ),
)

SPEC = Spec(
    name="mlvu",
    task="choice",
    questions=("mlvu/mlvu_dev.parquet", "MLVU/json", "MLVU/MLVU/json", "mlvu/json"),
    videos=("MLVU/video", "MLVU/MLVU/video", "mlvu/video", "mlvu"),
    question_count=sum(questions for questions, _ in _COUNTS.values()),
    video_count=sum(videos for _, videos in _COUNTS.values()),
    counts={f"{stem}.json": counts for stem, counts in _COUNTS.items()},
    read=read_mlvu,
    headline=Headline("M-Avg", ("type",)),
    movable_videos=True,
    downloads=_DOWNLOADS,
)
