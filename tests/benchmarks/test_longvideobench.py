"""LongVideoBench: the Hub's parquet file, lvb_val.json, subtitles, and errors."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from pyarrow import parquet

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.runs.check import check

PLACE = "longvideobench/validation-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def rows(shared):
    return parquet.read_table(shared / "qa" / PLACE).to_pylist()


def original(row):
    """A row in the format of lvb_val.json."""
    options = [row[f"option{i}"] for i in range(5)]
    kept = {name: value for name, value in row.items() if not name.startswith("option")}
    return kept | {"candidates": [option for option in options if option != "N/A"], "level": "L1-Perception"}


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_the_published_counts(shared):
    found = check(load_benchmark("longvideobench", shared / "qa" / PLACE))
    assert found.ok and (found.questions, found.videos) == (1337, 753) and not found.flaws
    questions = load_benchmark("longvideobench", root=shared / "qa").questions
    assert Counter(q.groups["duration"] for q in questions) == {"15": 189, "60": 172, "600": 412, "3600": 564}
    assert Counter(len(q.options) for q in questions) == {5: 983, 4: 353, 3: 1}
    assert len({q.type for q in questions}) == 17 and len({q.groups["topic"] for q in questions}) == 10


def test_every_question_matches_its_row(shared, rows):
    for q, row in zip(load_benchmark("longvideobench", root=shared / "qa").questions, rows, strict=True):
        assert q.answer == row[f"option{row['correct_choice']}"] and q.answer_index == row["correct_choice"]
        assert (q.id, q.video, q.text) == (row["id"], row["video_path"], row["question"])
        assert (q.subtitle_file, q.subtitle_start) == (row["subtitle_path"], row["starting_timestamp_for_subtitles"])
        assert "N/A" not in q.options and (q.type, q.task) == (row["question_category"], "choice")


def test_the_original_json_gives_the_same_questions(shared, rows, tmp_path):
    path = write(tmp_path / "lvb_val.json", [original(row) for row in rows])
    benchmark = load_benchmark("longvideobench", path)
    assert benchmark.questions == load_benchmark("longvideobench", root=shared / "qa").questions
    assert check(benchmark).ok


def test_the_original_layout_below_a_root(rows, videos, tmp_path):
    root = tmp_path / "LongVideoBench"
    for folder in ("videos", "subtitles"):
        (root / folder).mkdir(parents=True)
    write(root / "lvb_val.json", [original(row) for row in rows[:2]])
    (root / "videos" / rows[0]["video_path"]).symlink_to(videos / "a.mp4")
    write(root / "subtitles" / rows[0]["subtitle_path"], [{"start": "00:00:00.5", "end": "00:00:02.0", "line": "hi"}])
    benchmark = load_benchmark("longvideobench", root=tmp_path, follow_links=True)
    assert benchmark.find_subtitles(benchmark.questions[0].subtitle_file) == root / "subtitles/86CxyhFV9MI_en.json"
    found = check(benchmark, progress=False)
    assert not found.missing and "subtitles  1 of 1 files" in str(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": "x"}, "row 2: candidates must be a list, got 'x'"),
        ({"correct_choice": "B"}, "row 2: correct_choice must be a number, got 'B'"),
        ({"correct_choice": 0.5}, "row 2: correct_choice must be a whole number, got 0.5"),
        ({"starting_timestamp_for_subtitles": "soon"}, "row 2: starting_timestamp_for_subtitles must be a number"),
        ({"id": "86CxyhFV9MI_0"}, "row 2: the same id as row 1: '86CxyhFV9MI_0'"),
        ({"video_path": None}, "row 2: missing video_path"),
    ],
)
def test_a_bad_row_is_named(rows, tmp_path, change, message):
    path = write(tmp_path / "lvb_val.json", [original(rows[0]), original(rows[1]) | change])
    with pytest.raises(BenchmarkError, match=rf"lvb_val\.json, {message}"):
        load_benchmark("longvideobench", path)


def test_a_gap_between_options_is_an_error(rows, tmp_path):
    with pytest.raises(BenchmarkError, match="row 1: option1 is missing, but a later one is not"):
        load_benchmark("longvideobench", write(tmp_path / "q.json", [rows[0] | {"option1": None}]))


def test_a_choice_outside_the_options_is_kept_and_named(rows, tmp_path):
    """Option 4 of this question is a filler."""
    benchmark = load_benchmark("longvideobench", write(tmp_path / "q.json", [rows[0] | {"correct_choice": 4}, rows[1]]))
    assert [q.answer_index for q in benchmark.questions] == [None, 2]
    assert benchmark.questions[0].answer not in benchmark.questions[0].options
    assert "every reply is wrong: 1 (longvideobench/0)" in str(check(benchmark))
