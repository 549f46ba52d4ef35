"""MVBench (Li et al., 2023): 20 tasks of 200 questions on videos of eleven data sets.

Each task has its own folder of videos. Five tasks ask about clips; the question files have their start and end. In
lmms-eval's copy of the videos, these clips are already cut and named by start and end, such as ABCDE_1.5_9.2.mp4.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sfllava.benchmarks.choices import find_text, text_list
from sfllava.benchmarks.question_files import choice_question, read_number, read_table
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, hub_url
from sfllava.benchmarks.rows import BenchmarkError, Row
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.types import Clip, Question, Task

_CUT = r".*_\d+(\.\d+)?_\d+(\.\d+)?(\.mp4)?"
_MP4 = r".*\.mp4"


class _Folder(NamedTuple):
    """Where a task's videos are.

    Attributes:
        name: the folder.
        copy: the folder in lmms-eval's copy, if it has another name.
        copied: regular expression for the names of the videos in `copy`.
        clips: whether the questions are about clips.
        fps: the frame rate, if each video is a folder of frame images.
    """

    name: str
    copy: str = ""
    copied: str = ""
    clips: bool = False
    fps: float | None = None


_CHARADES = _Folder("star/Charades_v1_480", "star/Charades_segment", _CUT, clips=True)
_CLEVRER = _Folder("clevrer/video_validation")
_PERCEPTION = _Folder("perception/videos")
_TASKS = {
    "action_antonym": _Folder("ssv2_video", "ssv2_video_mp4", _MP4),
    "action_count": _PERCEPTION,
    "action_localization": _Folder("sta/sta_video", "sta/sta_video_segment", _CUT, clips=True),
    "action_prediction": _CHARADES,
    "action_sequence": _CHARADES,
    "character_order": _PERCEPTION,
    "counterfactual_inference": _CLEVRER,
    "egocentric_navigation": _Folder("vlnqa"),
    "episodic_reasoning": _Folder("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment", _CUT, clips=True, fps=3.0),
    "fine_grained_action": _Folder("Moments_in_Time_Raw/videos"),
    "fine_grained_pose": _Folder("nturgbd", "nturgbd_convert", _MP4),
    "moving_attribute": _CLEVRER,
    "moving_count": _CLEVRER,
    "moving_direction": _CLEVRER,
    "object_existence": _CLEVRER,
    "object_interaction": _CHARADES,
    "object_shuffle": _PERCEPTION,
    "scene_transition": _Folder("scene_qa/video"),
    "state_change": _PERCEPTION,
    "unexpected_action": _Folder("FunQA_test/test"),
}


def read_mvbench(path: Path, name: str, task: Task) -> tuple[list[Question], list[Path]]:
    """Read a folder with the files of all tasks (JSON, or the Hub's parquet), or the file of one task."""
    if path.is_file():
        if path.stem not in _TASKS:
            raise BenchmarkError(f"{path}: needed the file of a task, such as {next(iter(_TASKS))}.json")
        return _read_task(path, name, path.stem)
    questions: list[Question] = []
    files: list[Path] = []
    for kind in _TASKS:
        places = [path / f"{kind}.json", path / f"{kind}.parquet", path / kind / "train" / "0000.parquet"]
        if (found := next((place for place in places if place.is_file()), None)) is None:
            raise BenchmarkError(f"{path}: needed {kind}.json, one of MVBench's {len(_TASKS)} question files")
        read, (file,) = _read_task(found, name, kind)
        questions += read
        files.append(file)
    return questions, files


def _read_task(path: Path, name: str, kind: str) -> tuple[list[Question], list[Path]]:
    columns = ("video", "question", "candidates", "answer")
    return read_table(path, f"{name}/{kind}", columns, partial(_question, kind, _TASKS[kind]))


def _question(kind: str, folder: _Folder, row: Row, key: str, where: str) -> Question:
    options, answer, video = text_list(row["candidates"], "candidates", where), str(row["answer"]), str(row["video"])
    in_copy = bool(folder.copy) and re.fullmatch(folder.copied, PurePosixPath(video).name) is not None
    clip = Clip(fps=folder.fps)
    if folder.clips and not in_copy:  # some rows have impossible bounds; they fail when the video is decoded
        clip = Clip(read_number(row, "start", where), read_number(row, "end", where), folder.fps)
    return choice_question(
        where,
        options,
        find_text(answer, options),
        answer,
        key=key,
        text=row["question"],
        video=f"{folder.copy if in_copy else folder.name}/{video}",
        type=kind,
        clip=None if clip == Clip() else clip,
    )


# The sizes and SHA-256 of the question files are unknown, so the revision pins them.
_REVISION = "230a2d4fac8900333c61754641c7a13e069ac9c6"
_SHA256 = {  # of video/NAME.zip; that of tvqa is unknown, but the Hub reports it
    "FunQA_test": "d6ef954652c2a1b48fb772d52c97da35dc7f8b54e5bdf4b43ba4f773ed726723",
    "Moments_in_Time_Raw": "16add0d03cbb7c6b76974551879f7dc8a7ce985b89699a2231136b81d3ba9967",
    "clevrer": "9040ad663440611bd8580fc0fc3da31bd1a4bfef877631db7b570a7d7d41de1c",
    "data0613": "f045863b2ccf7f32ada437d72529fea1c026fc015a7df548f703c22b71a24962",
    "perception": "98fc197a90c875fb24f34fe89cb91e2788e1e7ac2459bf860ed62d9f07104b34",
    "scene_qa": "26b3dc385e5a8f7b8fd9aab32a3522488fdfe7bbe06f0d98206d43647c77cce9",
    "ssv2_video": "8493fe3762bdc205b587c4d02e016f9ccbb314b523ed0bf2c5bdbe367456d1e9",
    "sta": "4c27cbf62bbc1b0217b5183871f298e7a76b2a498dd4482365c617f25338de9a",
    "star": "bdb5f192a98f78e79e51da6ae801f8ba79d1d09c0d8c19b6e63105251cb17585",
    "tvqa": "",
    "vlnqa": "578f9edf2973560ac0d79990d9a2961ccae8edcdb1cb0be2c3bf15045f04428a",
}
_DOWNLOADS = Downloads(
    questions=tuple(
        RemoteFile(f"mvbench/json/{task}.json", hub_url("OpenGVLab/MVBench", _REVISION, f"json/{task}.json"))
        for task in _TASKS
    ),
    licence="MIT (according to the Hub page)",
    videos=Videos(
        licence="several data sets, each with its own licence; without NTU RGB+D's videos: ask its authors for them",
        place="https://huggingface.co/datasets/OpenGVLab/MVBench",
        size="17 GB in 11 archives",
        files=tuple(
            RemoteFile(
                f"mvbench/video/{name}.zip",
                hub_url("OpenGVLab/MVBench", _REVISION, f"video/{name}.zip"),
                sha256=sha256,
                unpack="mvbench/video",
            )
            for name, sha256 in _SHA256.items()
        ),
    ),
)

SPEC = Spec(
    name="mvbench",
    task="choice",
    questions=("MVBench/json", "mvbench/json", "MVBench", "mvbench"),
    videos=("MVBench/video", "mvbench/video", "mvbench_video", "MVBench", "mvbench"),
    question_count=200 * len(_TASKS),
    counts={f"{kind}.json": (200, None) for kind in _TASKS},
    read=read_mvbench,
    headline=Headline("mean over tasks", ("type",)),
    movable_videos=True,
    downloads=_DOWNLOADS,
)
