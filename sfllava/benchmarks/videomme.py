"""Video-MME (Fu et al., 2024): short, medium and long videos, without or with subtitles.

744 of the 900 videos have subtitles; questions about the others are asked without them.
"""

from __future__ import annotations

from pathlib import Path

from sfllava.benchmarks.choices import find_letter, strip_letters, text_list
from sfllava.benchmarks.question_files import choice_question, read_table
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, hub_url
from sfllava.benchmarks.rows import Row
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.types import Question, Task

_COLUMNS = ("videoID", "question_id", "task_type", "question", "options", "answer", "duration", "domain")


def read_videomme(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read the questions of the published parquet file, or of a JSON or CSV file with the same columns."""
    return read_table(path, name, _COLUMNS, _question, unique="question_id")


def _question(row: Row, key: str, where: str) -> Question:
    options = strip_letters(text_list(row["options"], "options", where), where)
    return choice_question(
        where,
        options,
        find_letter(str(row["answer"]), options),
        str(row["answer"]),
        key=key,
        text=row["question"],
        video=row["videoID"],
        id=str(row["question_id"]),
        type=str(row["task_type"]),
        groups={
            "duration": str(row["duration"]),
            "domain": str(row["domain"]),
            "sub_category": str(row.get("sub_category") or ""),
        },
        subtitle_file=f"{row['videoID']}.srt",
    )


# The latest revision of main in its list of commits, and the one that added the last video archive.
_REVISION = "ead1408f75b618502df9a1d8e0950166bf0a2a0b"
_SHA256 = (  # of videos_chunked_01.zip to _20.zip; the 4th is unknown, but the Hub reports it
    "3076173e26febbecd3c44eba36b6c3da883f16467812a913f0953e98298b50f6",
    "db6b99129aaf6c0b049a47178718cec03e819e2cbfc3083b7ad1402f58d7c36e",
    "6daab383dd797577b31eba72e90f05acc9956126a93840f7451ca01cb4d89641",
    "",
    "3ecc6b55bdf4025f0eff75a22b8749bd416dd6659915b2bddf203c2b6fcba999",
    "162507ba54f38c2c7f7e4cc9d6d963ef6b9f26579c64e36843f6491f043191dc",
    "ba40a267c0cc5dd322ebc1d7c87d064c62250c34d92faead5ce497adca2228e3",
    "954c02a9e88d59b6d26f7d72e5c1a6599214105f48a28b442d9aac3aeca4b3f7",
    "5f06a43ac518437ea0012aabacc8c959a3b103907f2dad71f31fb96ff712d3c0",
    "4997d3a2eb94cc80f082af0847c79255f132d6137b99b040fa056bb737e4dd1a",
    "de0c93afc2eca50c38f9a0f9674fd763c82ce639a1cf26dc74a72c02e87834fe",
    "bc9c4a6072de70e0024e854470c8db26c12bfdfc1c3ba3f3053bb36b73363504",
    "b5a263c966384393a3d90dfe64bc960ccf4cc257c7a93ab02769b2039afa05e0",
    "dbf9c5be8cb20f14435171e2f232c1e16627d9d3a52ddaaca3805f3e11916f1e",
    "ecb2a6eebf2cdd6bef8c6ddb349e1acef48677be886dc3637a5e5a65e45e46aa",
    "5c71bdf703c1081db373f9eb3dc568147117e555327e8c8b0b749b1d56d81c16",
    "24ee556b6214127d541e660ca1ffe21e8feea0df8f3f9504f3cd028736ee1b10",
    "eac78a739fd26681bf4bac6a405215ed81b80e154b15203376e9de2b67077c81",
    "16f9a49b7edb100e10390e48371ca9bc58c88235191361e176455a41feacdb68",
    "45ffc49a8600b856aa02ea05b35da970c250a5790f7d7da123e5795ff0e27171",
)
_SUBTITLES_SHA256 = "a2ee50c5912d23301ddf2c5036c19c4ac4eb2116cd9874aeecd026c4eff45a34"


def _archive(name: str, sha256: str) -> RemoteFile:
    return RemoteFile(
        f"videomme/{name}", hub_url("lmms-lab/Video-MME", _REVISION, name), sha256=sha256, unpack="videomme"
    )


_DOWNLOADS = Downloads(
    questions=(
        RemoteFile(
            "videomme/test-00000-of-00001.parquet",
            hub_url("lmms-lab/Video-MME", _REVISION, "videomme/test-00000-of-00001.parquet"),
            405_167,
            "7fffab8ed38ecc2f9f0eca4c44d8a11636f0ee96116ede83580c8b9ae0faf986",
        ),
    ),
    licence="academic research only; no distribution without approval (the authors' README)",
    videos=Videos(
        licence="academic research only; the videos belong to their owners; no distribution without approval",
        place="https://huggingface.co/datasets/lmms-lab/Video-MME",
        size="about 101 GB in 20 archives, and 7.5 MB of subtitles",
        # the archives contain data/ID.mp4 and subtitle/ID.srt (according to other tools)
        files=(
            _archive("subtitle.zip", _SUBTITLES_SHA256),
            *(_archive(f"videos_chunked_{i:02}.zip", sha) for i, sha in enumerate(_SHA256, 1)),
        ),
    ),
)

SPEC = Spec(
    name="videomme",
    task="choice",
    questions=("videomme/test-00000-of-00001.parquet", "Video-MME/videomme/test-00000-of-00001.parquet"),
    videos=("videomme/data", "Video-MME/data", "videomme/videos", "Video-MME/videos"),
    subtitles=("videomme/subtitle", "Video-MME/subtitle"),
    question_count=2_700,
    video_count=900,
    read=read_videomme,
    headline=Headline("mean over durations", ("duration",)),
    downloads=_DOWNLOADS,
)
