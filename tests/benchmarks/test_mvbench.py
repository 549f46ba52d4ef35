"""MVBench: 20 tasks, their folders of videos, clips, folders of frame images, and errors."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.runs.check import check
from sfllava.sampler.reading import read_video
from sfllava.types import Clip

# task -> the published folder of its videos, and an example of a name in its file
TASKS = {
    "action_antonym": ("ssv2_video", "166583.webm"),
    "action_count": ("perception/videos", "video_8686.mp4"),
    "action_localization": ("sta/sta_video", "3MSZA.mp4"),
    "action_prediction": ("star/Charades_v1_480", "ZS9XR.mp4"),
    "action_sequence": ("star/Charades_v1_480", "ZS9XR.mp4"),
    "character_order": ("perception/videos", "video_1.mp4"),
    "counterfactual_inference": ("clevrer/video_validation", "video_10009.mp4"),
    "egocentric_navigation": ("vlnqa", "1.mp4"),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "friends_s03e10_seg02_clip_15"),
    "fine_grained_action": ("Moments_in_Time_Raw/videos", "a.mp4"),
    "fine_grained_pose": ("nturgbd", "S001C001P001R001A026_rgb.avi"),
    "moving_attribute": ("clevrer/video_validation", "video_10009.mp4"),
    "moving_count": ("clevrer/video_validation", "video_10009.mp4"),
    "moving_direction": ("clevrer/video_validation", "video_1.mp4"),
    "object_existence": ("clevrer/video_validation", "video_10009.mp4"),
    "object_interaction": ("star/Charades_v1_480", "USNP1.mp4"),
    "object_shuffle": ("perception/videos", "video_2.mp4"),
    "scene_transition": ("scene_qa/video", "s.mp4"),
    "state_change": ("perception/videos", "video_3.mp4"),
    "unexpected_action": ("FunQA_test/test", "H_A_1.mp4"),
}
CLIPS = {"action_localization", "action_prediction", "action_sequence", "episodic_reasoning", "object_interaction"}


def make_row(task, i, **changes):
    row = {"video": TASKS[task][1], "question": f"What happens, {i}?", "candidates": ["a", "b", "c"], "answer": "b"}
    return row | ({"start": 0.5, "end": 1.0} if task in CLIPS else {}) | changes


@pytest.fixture
def folder(tmp_path):
    """A folder like MVBench/json on the Hub, with two questions for each task."""
    folder = tmp_path / "MVBench" / "json"
    folder.mkdir(parents=True)
    for task in TASKS:
        (folder / f"{task}.json").write_text(json.dumps([make_row(task, i) for i in range(2)]))
    return folder


def put(videos, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(videos / "a.mp4", place)
    return place


def test_each_task_has_its_folder_and_five_have_clips(folder, tmp_path):
    questions = load_benchmark("mvbench", root=tmp_path).questions
    assert len(questions) == 40 and {q.type for q in questions} == set(TASKS)
    for q in questions:
        assert q.video == "/".join(TASKS[q.type]) and (q.answer, q.answer_index, q.task) == ("b", 1, "choice")
        fps = 3.0 if q.type == "episodic_reasoning" else None
        assert q.clip == (Clip(0.5, 1.0, fps) if q.type in CLIPS else None)
    assert {q.key for q in questions} >= {"mvbench/action_antonym/0", "mvbench/unexpected_action/1"}


def test_the_published_counts(folder, tmp_path):
    assert "questions  40, expected 4,000: WRONG" in str(check(load_benchmark("mvbench", folder)))
    for task in TASKS:
        (folder / f"{task}.json").write_text(json.dumps([make_row(task, i) for i in range(200)]))
    found = check(load_benchmark("mvbench", folder))
    assert found.ok and found.questions == 4000 and "4,000, as published" in str(found)
    assert check(load_benchmark("mvbench", folder / "state_change.json")).ok


def test_the_hub_s_parquet_files_ask_the_same(folder, tmp_path):
    hub = tmp_path / "hub"
    for task in TASKS:
        (hub / task / "train").mkdir(parents=True)
        rows = json.loads((folder / f"{task}.json").read_text())
        parquet.write_table(pyarrow.Table.from_pylist(rows), hub / task / "train" / "0000.parquet")
    assert load_benchmark("mvbench", hub).questions == load_benchmark("mvbench", folder).questions


def test_videos_are_found_in_the_folder_of_their_task(folder, videos, tmp_path):
    root = tmp_path / "MVBench" / "video"
    put(videos, root / "perception/videos/video_1.mp4")
    put(videos, root / "data0613/star/Charades_v1_480/zs9xr.MP4")  # a later archive, with a separate folder
    put(videos, root / "ssv2_video_mp4/166583.mp4")  # converted
    benchmark = load_benchmark("mvbench", root=tmp_path)
    assert benchmark.videos_dir == root
    found = {name: benchmark.find_video(name).relative_to(root).as_posix() for name in (
        "perception/videos/video_1.mp4", "star/Charades_v1_480/ZS9XR.mp4", "ssv2_video/166583.webm",
    )}  # fmt: skip
    assert list(found.values()) == [
        "perception/videos/video_1.mp4", "data0613/star/Charades_v1_480/zs9xr.MP4", "ssv2_video_mp4/166583.mp4",
    ]  # fmt: skip
    with pytest.raises(BenchmarkError, match=r"clevrer/video_validation/video_1\.mp4: no such video"):
        benchmark.find_video("clevrer/video_validation/video_1.mp4")  # that of another data set is another video


def test_videos_in_one_folder(folder, videos, tmp_path):
    put(videos, tmp_path / "flat" / "ZS9XR.mp4")
    benchmark = load_benchmark("mvbench", folder, tmp_path / "flat")
    assert benchmark.find_video("star/Charades_v1_480/ZS9XR.mp4") == tmp_path / "flat/ZS9XR.mp4"


def test_clips_that_lmms_eval_s_copy_has_cut_are_not_cut_again(folder, tmp_path):
    names = {
        "action_sequence": "ZS9XR_11.1_18.1.mp4",
        "action_localization": "3MSZA_0_24.299999999999997.mp4",
        "episodic_reasoning": "friends_s03e10_seg02_clip_15_0.0_40.5.mp4",
        "fine_grained_pose": "S001C001P001R001A026_rgb.mp4",
        "action_antonym": "166583.mp4",
    }
    for task, name in names.items():
        (folder / f"{task}.json").write_text(json.dumps([make_row(task, 0, video=name)]))
    found = {q.type: q for q in load_benchmark("mvbench", folder).questions if q.type in names}
    assert {task: q.video.rsplit("/", 1)[0] for task, q in found.items()} == {
        "action_sequence": "star/Charades_segment",
        "action_localization": "sta/sta_video_segment",
        "episodic_reasoning": "tvqa/video_fps3_hq_segment",
        "fine_grained_pose": "nturgbd_convert",
        "action_antonym": "ssv2_video_mp4",
    }
    assert all(q.clip == (Clip(fps=3.0) if task == "episodic_reasoning" else None) for task, q in found.items())


def test_a_folder_of_frames_has_three_frames_per_second(folder, tmp_path):
    place = tmp_path / "MVBench/video/tvqa/frames_fps3_hq/friends_s03e10_seg02_clip_15"
    place.mkdir(parents=True)
    for i in range(30):
        Image.fromarray(np.full((16, 16, 3), 8 * i, np.uint8)).save(place / f"{i + 1:05d}.jpg")
    rows = [
        make_row("episodic_reasoning", i, start=start, end=end) for i, (start, end) in enumerate(((3, 6), (20, 30)))
    ]
    (folder / "episodic_reasoning.json").write_text(json.dumps(rows))
    benchmark = load_benchmark("mvbench", root=tmp_path)
    inside, outside = [q for q in benchmark.questions if q.type == "episodic_reasoning"]
    video = read_video(benchmark.find_video(inside.video), 5, clip=inside.clip)
    assert video.indices.min() >= 9 and video.indices.max() <= 18 and len(video.indices) == 5
    assert video.pts_seconds.min() >= 3 and video.pts_seconds.max() <= 6
    found = check(benchmark, progress=False)
    assert (
        not found.ok
        and "outside: tvqa/frames_fps3_hq/friends_s03e10_seg02_clip_15: the clip from 20 s to 30 s is " in (str(found))
    )
    assert outside.clip == Clip(20, 30, 3.0)


def test_impossible_bounds_are_kept_and_named(folder):
    rows = [make_row("action_sequence", 0, start=9.0, end=4.0), make_row("action_sequence", 1, start=None, end=None)]
    (folder / "action_sequence.json").write_text(json.dumps(rows))
    benchmark = load_benchmark("mvbench", folder)
    first, second = [q.clip for q in benchmark.questions if q.type == "action_sequence"]
    assert first == Clip(9.0, 4.0) and second is None
    assert "the clip ends before it starts, so the question fails: 1 (mvbench/action_sequence/0)" in (
        str(check(benchmark))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "soon"}, r"action_sequence\.json, row 1: start must be a number, got 'soon'"),
        ({"candidates": "a"}, r"action_sequence\.json, row 1: candidates must be a list"),
        ({"video": "../../a.mp4"}, "does not name a video inside the folder"),
        ({"answer": None}, "row 1: missing answer"),
    ],
)
def test_a_bad_row_is_named(folder, change, message):
    (folder / "action_sequence.json").write_text(json.dumps([make_row("action_sequence", 0, **change)]))
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("mvbench", folder)


def test_a_missing_task_is_named(folder):
    (folder / "vlnqa.json").write_text("[]")
    with pytest.raises(BenchmarkError, match=r"vlnqa\.json: needed the file of a task, such as action_antonym\.json"):
        load_benchmark("mvbench", folder / "vlnqa.json")
    (folder / "moving_count.json").unlink()
    with pytest.raises(BenchmarkError, match=r"needed moving_count\.json, one of MVBench's 20 question files"):
        load_benchmark("mvbench", folder)
