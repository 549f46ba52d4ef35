"""MLVU: the parquet file, original JSON files made from it, the format of the test set, the open tasks, and flaws."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pyarrow
import pytest
from pyarrow import parquet

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.evaluators.choice import judge_choice
from sfllava.runs.check import check
from sfllava.runs.scoring import score_rows

COUNTS = {
    "plotQA": 539, "needle": 355, "ego": 352, "count": 206, "order": 259, "anomaly_reco": 200, "topic_reasoning": 263,
}  # fmt: skip
STEMS = {task: f"{i}_{task}" for i, task in enumerate(COUNTS, 1)}


@pytest.fixture(scope="module")
def rows(shared):
    return parquet.read_table(shared / "qa/mlvu/mlvu_dev.parquet").to_pylist()


def original(row):
    """A row in the format of the original files: only the question, and the text of the answer."""
    kind = row["task_type"]
    return {
        "video": row["video_name"],
        "duration": row["duration"],
        "question": row["question"].split("\n(A) ")[0],
        "candidates": row["candidates"],
        "answer": row["candidates"]["ABCD".index(row["answer"])],
        "question_type": "findNeedle" if kind == "needle" else kind,
    }


BLANK = {"video": "v.mp4", "duration": 60, "question": "", "candidates": [""] * 4, "answer": "", "question_type": "x"}


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    """The original files, with two needle answers that are not candidates and one blank row, as published."""
    folder = tmp_path_factory.mktemp("mlvu") / "MLVU" / "json"
    folder.mkdir(parents=True)
    for task, stem in STEMS.items():
        written = [original(row) for row in rows if row["task_type"] == task]
        if task == "needle":
            for i in (34, 338):
                written[i]["answer"] = "Catching a flying drone quadcopter"
        if task == "topic_reasoning":
            written.insert(26, BLANK)
        (folder / f"{stem}.json").write_text(json.dumps(written))
    return folder


def test_the_published_counts(shared):
    found = check(load_benchmark("mlvu", shared / "qa/mlvu/mlvu_dev.parquet"))
    assert found.ok and (found.questions, found.videos) == (2174, 1242) and not found.flaws
    benchmark = load_benchmark("mlvu", root=shared / "qa")
    assert Counter(q.type for q in benchmark.questions) == COUNTS
    assert len({q.video.split("/")[1] for q in benchmark.questions}) == 1122  # some are in the folders of two tasks
    # the folder of the question file is not taken as the folder of videos
    assert benchmark.videos_dir is None and "MISSING: the folder of videos" in str(check(benchmark))


def test_every_question_matches_its_row(shared, rows):
    for q, row in zip(load_benchmark("mlvu", root=shared / "qa").questions, rows, strict=True):
        lines = "".join(f"\n({letter}) {option}" for letter, option in zip("ABCD", q.options))
        assert (q.text + lines).rstrip() == row["question"].rstrip() and list(q.options) == row["candidates"]
        assert "ABCD"[q.answer_index] == row["answer"] and q.answer == q.options[q.answer_index]  # type: ignore[index]
        assert q.video == f"{STEMS[row['task_type']]}/{row['video_name']}"
        assert (q.id, q.type, q.task) == (row["question_id"], row["task_type"], "choice")


def test_empty_options_keep_their_letters(shared):
    """Two options of one question are empty; the right one is B."""
    (question,) = [q for q in load_benchmark("mlvu", root=shared / "qa").questions if q.id == "Q1136"]
    assert question.options == ("", "There is an archery scene", "There is no archery scene", "")
    assert question.answer_index == 1 and "(A)" not in question.text


def test_the_original_files_ask_the_same(shared, folder):
    benchmark = load_benchmark("mlvu", root=folder.parents[1])
    ours = {(q.video, q.text.strip(), q.options): q for q in benchmark.questions}
    theirs = {(q.video, q.text.strip(), q.options): q for q in load_benchmark("mlvu", root=shared / "qa").questions}
    assert ours.keys() == theirs.keys() and len(ours) == 2174
    changed = [q.key for which, q in ours.items() if q.answer != theirs[which].answer]
    assert changed == ["mlvu/needle/34", "mlvu/needle/338"]
    assert Counter(q.type for q in benchmark.questions) == COUNTS and len(benchmark.files) == 7


def test_one_original_file(folder):
    benchmark = load_benchmark("mlvu", folder / "2_needle.json")
    assert check(benchmark).ok and "questions  355, as published" in str(check(benchmark))
    assert benchmark.questions == [q for q in load_benchmark("mlvu", folder).questions if q.type == "needle"]


def test_flaws_of_the_original_files_are_counted_and_named(folder):
    benchmark = load_benchmark("mlvu", folder)
    text = str(check(benchmark))
    assert check(benchmark).ok and "questions  2,174, as published" in text and "videos     1,242, as published" in text
    assert "blank row, left out: 1 (7_topic_reasoning.json, row 27)" in text
    assert "so every reply is wrong: 2 (mlvu/needle/34, mlvu/needle/338)" in text
    by_key = {q.key: q for q in benchmark.questions}
    assert "mlvu/topic_reasoning/26" not in by_key and by_key["mlvu/topic_reasoning/263"].type == "topic_reasoning"
    flawed = by_key["mlvu/needle/34"]
    for letter in "ABCD":  # no reply is right, and the question stays in the denominator
        assert not any(verdict.correct for verdict in judge_choice(flawed, f"({letter})").values())
    row = {"key": flawed.key, "setting": "s", "prediction": "A", "error": None}
    assert score_rows([flawed], ["s"], [row])["s"]["rules"]["choice-strict"] == {
        "accuracy": 0.0, "correct": 0, "unparsable": 0,
    }  # fmt: skip


def test_videos_in_the_folders_of_tasks_in_one_folder_or_elsewhere(shared, rows, folder, videos, tmp_path):
    asked = {kind: {row["video_name"] for row in rows if row["task_type"] == kind} for kind in COUNTS}
    name = min(asked["plotQA"] & asked["topic_reasoning"])
    by_task, flat, chunks = (tmp_path / place for place in ("by_task", "flat", "chunks"))
    for path in (by_task / "1_plotQA", by_task / "7_topic_reasoning", flat, chunks / "video_part_1"):
        path.mkdir(parents=True)
        shutil.copy(videos / "a.mp4", path / name)
    names = [f"1_plotQA/{name}", f"7_topic_reasoning/{name}"]
    for question_file in (shared / "qa/mlvu/mlvu_dev.parquet", folder):
        benchmark = load_benchmark("mlvu", question_file, by_task)
        assert [benchmark.find_video(each) for each in names] == [by_task / each for each in names]
        for place in (flat, chunks):
            benchmark = load_benchmark("mlvu", question_file, place)
            assert {benchmark.find_video(each).parent.name for each in names} <= {"flat", "video_part_1"}
    (by_task / names[1]).rename(by_task / "7_topic_reasoning/other.mp4")
    with pytest.raises(BenchmarkError, match=rf"7_topic_reasoning/{name}: no such video"):
        load_benchmark("mlvu", folder, by_task).find_video(names[1])  # that of another task is another file


def test_the_test_set_has_six_options(tmp_path):
    row = {
        "question_id": "TQA_3", "question_type": "tutorialQA", "video": "test_tutorial_1.mp4", "duration": 300,
        "question": "What is added last?", "candidates": ["salt", "oil", "rice", "egg", "leek", "tea"], "answer": "tea",
    }  # fmt: skip
    (tmp_path / "test_mcq_gt.json").write_text(json.dumps([row]))
    lines = "".join(f"({letter}) {option}\n" for letter, option in zip("ABCDEF", row["candidates"]))
    flat = {"video_name": row["video"], "question": f"{row['question']}\n{lines}", "candidates": row["candidates"]}
    flat |= {"answer": "F", "task_type": "tutorialQA", "question_id": "TQA_3"}
    parquet.write_table(pyarrow.Table.from_pylist([flat]), tmp_path / "mlvu_test.parquet")
    for name in ("test_mcq_gt.json", "mlvu_test.parquet"):
        benchmark = load_benchmark("mlvu_test", tmp_path / name)
        (q,) = benchmark.questions
        assert (q.options, q.answer, q.answer_index) == (tuple(row["candidates"]), "tea", 5)
        assert (q.text, q.video, q.id, q.type) == (row["question"], row["video"], "TQA_3", "tutorialQA")
        assert "questions  1, expected 502: WRONG" in str(check(benchmark))
    (tmp_path / "test_mcq_gt.json").write_text(json.dumps([row, row]))
    with pytest.raises(BenchmarkError, match="row 2: the same question_id as row 1: 'TQA_3'"):
        load_benchmark("mlvu_test", tmp_path / "test_mcq_gt.json")


def test_the_open_tasks(tmp_path):
    scene = {"video": "subPlot_1.mp4", "duration": 9, "question": "Describe the scene.", "answer": "A man runs."}
    summary = {"video": "217.mp4", "duration": 480.0, "question": "Please summarize.", "answer": "Waves. A boat."}
    (tmp_path / "8_sub_scene.json").write_text(json.dumps([scene | {"scoring_points": ["a man"]}]))
    with pytest.raises(BenchmarkError, match=r"9_summary\.json: cannot read the question file"):
        load_benchmark("mlvu_open", tmp_path)
    (tmp_path / "9_summary.json").write_text(json.dumps([summary]))
    benchmark = load_benchmark("mlvu_open", tmp_path)
    assert [(q.key, q.video, q.type, q.task, q.answer) for q in benchmark.questions] == [
        ("mlvu_open/sub_scene/0", "8_sub_scene/subPlot_1.mp4", "sub_scene", "describe", "A man runs."),
        ("mlvu_open/summary/0", "9_summary/217.mp4", "summary", "describe", "Waves. A boat."),
    ]
    assert "2, expected 418: WRONG" in str(check(benchmark))
    alone = load_benchmark("mlvu_open", tmp_path / "9_summary.json")
    assert [q.key for q in alone.questions] == ["mlvu_open/summary/0"] and alone.published_counts == (217, 216)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": "x"}, r"3_ego\.json, row 1: candidates must be a list"),
        ({"candidates": 5}, r"3_ego\.json, row 1: candidates must be a list"),
        ({"candidates": [], "question": ""}, r"3_ego\.json, row 1: needed options, got none"),
        ({"candidates": []}, r"3_ego\.json, row 1: needed options, got none"),
        ({"answer": None}, r"3_ego\.json, row 1: missing answer"),
        ({"question": ""}, r"3_ego\.json, row 1: question is empty"),
        (None, r"3_ego\.json: cannot read the question file"),
    ],
)
def test_a_bad_original_file_is_named(folder, tmp_path, change, message):
    copy = shutil.copytree(folder, tmp_path / "json")
    rows = json.loads((copy / "3_ego.json").read_text())
    (copy / "3_ego.json").unlink()
    if change is not None:
        (copy / "3_ego.json").write_text(json.dumps([rows[0] | change, *rows[1:]]))
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("mlvu", copy)


def test_duplicate_ids_are_named(rows, tmp_path):
    parquet.write_table(pyarrow.Table.from_pylist([rows[0], rows[1], rows[0]]), tmp_path / "q.parquet")
    with pytest.raises(BenchmarkError, match=r"q\.parquet, row 3: the same question_id as row 1: 'Q0'"):
        load_benchmark("mlvu", tmp_path / "q.parquet")
