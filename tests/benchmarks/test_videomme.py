"""Video-MME: the published parquet file, the same data as CSV and JSON, subtitles, and errors."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pyarrow
import pytest
from pyarrow import parquet

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.runs.check import check

PLACE = "videomme/test-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def rows(shared):
    return parquet.read_table(shared / "qa" / PLACE).to_pylist()


def write(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_the_published_counts(shared):
    found = check(load_benchmark("videomme", shared / "qa" / PLACE))
    assert found.ok and (found.questions, found.videos) == (2700, 900) and str(found).count("as published") == 2
    assert check(load_benchmark("videomme", root=shared / "qa")).questions == 2700
    questions = load_benchmark("videomme", shared / "qa" / "videomme").questions
    videos = {q.video: q.groups["duration"] for q in questions}
    assert Counter(videos.values()) == {"short": 300, "medium": 300, "long": 300}
    assert len({q.type for q in questions}) == 12 and len({q.groups["domain"] for q in questions}) == 6
    assert len({q.id for q in questions}) == len({q.key for q in questions}) == 2700


def test_every_question_matches_its_row(shared, rows):
    questions = load_benchmark("videomme", shared / "qa" / PLACE).questions
    for q, row in zip(questions, rows, strict=True):
        assert [f"{letter}. {option}" for letter, option in zip("ABCD", q.options, strict=True)] == row["options"]
        assert q.answer_index == "ABCD".index(row["answer"]) and q.answer == q.options[q.answer_index]
        assert (q.text, q.id, q.type, q.task) == (row["question"], row["question_id"], row["task_type"], "choice")
        assert (q.video, q.subtitle_file) == (row["videoID"], f"{row['videoID']}.srt") and q.clip is None
    first = questions[0]
    assert (first.key, first.id, first.video) == ("videomme/0", "001-1", "fFjv93ACGo8")
    assert first.options == ("Apples.", "Candles.", "Berries.", "The three kinds are of the same number.")
    assert first.answer == "Berries." and first.answer_index == 2
    assert first.groups == {"duration": "short", "domain": "Knowledge", "sub_category": "Humanity & History"}


def test_the_letter_determines_the_right_one_of_equal_options(shared, rows):
    """Ten questions list an option twice."""
    questions = load_benchmark("videomme", shared / "qa" / PLACE).questions
    twice = [(q, row) for q, row in zip(questions, rows) if len(set(q.options)) < 4]
    assert len(twice) == 10 and "119-1" in {q.id for q, _ in twice}
    assert all("ABCD"[q.answer_index] == row["answer"] for q, row in twice)  # type: ignore[index]


def test_csv_and_json_with_the_same_columns(shared, rows, tmp_path):
    (tmp_path / "mme.json").write_text(json.dumps(rows))
    with (tmp_path / "mme.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"options": json.dumps(row["options"])} for row in rows)
    wanted = load_benchmark("videomme", shared / "qa" / PLACE).questions
    assert load_benchmark("videomme", tmp_path / "mme.json").questions == wanted
    assert load_benchmark("videomme", tmp_path / "mme.csv").questions == wanted


def test_videos_and_subtitles_of_the_hub_and_of_lmms_eval(shared, rows, videos, tmp_path):
    """Other suffixes and cases, and folders of chunks; a broken subtitle file is named, a missing one is counted."""
    for folder in ("data/videos_chunked_01", "subtitle"):
        (tmp_path / "videomme" / folder).mkdir(parents=True)
    names = list(dict.fromkeys(row["videoID"] for row in rows))[:4]
    suffixes = (".mp4", ".MP4", ".mkv", ".mp4")
    for i, (name, suffix) in enumerate(zip(names, suffixes)):
        name = name.swapcase() if i == 3 else name
        (tmp_path / f"videomme/data/videos_chunked_01/{name}{suffix}").symlink_to(videos / "a.mp4")
    question_file = write(tmp_path / PLACE, rows[:15])
    (tmp_path / f"videomme/subtitle/{names[0]}.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    (tmp_path / f"videomme/subtitle/{names[1]}.srt").write_text("no times\n")
    benchmark = load_benchmark("videomme", root=tmp_path, follow_links=True)
    assert benchmark.files == [question_file] and benchmark.subtitles_dir == tmp_path / "videomme/subtitle"
    assert [benchmark.find_video(name).suffix for name in names] == list(suffixes)
    found = check(benchmark, progress=False)
    assert found.missing == [rows[12]["videoID"]] and not found.unreadable
    assert "subtitles  2 of 5 files found; questions without a file are asked without" in str(found)
    assert f"unreadable subtitles: {tmp_path}/videomme/subtitle/{names[1]}.srt: has no subtitles" in str(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ["A. x", "C. y"]}, r"row 2: needed an option that begins with B\., got 'C\. y'"),
        ({"options": ["x", "y"]}, r"row 2: needed an option that begins with A\., got 'x'"),
        ({"options": []}, "row 2: needed options, got none"),
        ({"options": [None, "B. x"]}, r"row 2: options must be a list, got \[None"),
        ({"options": None}, "row 2: missing options; there are video_id"),
        ({"question": " "}, "row 2: question is empty"),
        ({"videoID": "../x"}, r"row 2: video_name '\.\./x' does not name a video inside"),
        ({"question_id": "001-1"}, "row 2: the same question_id as row 1: '001-1'"),
    ],
)
def test_a_bad_row_is_named(rows, tmp_path, change, message):
    with pytest.raises(BenchmarkError, match=rf"q\.parquet, {message}"):
        load_benchmark("videomme", write(tmp_path / "q.parquet", [rows[0], rows[1] | change]))


def test_another_schema_is_one_line(rows, tmp_path):
    kept = [{"question": row["question"], "choices": row["options"]} for row in rows[:3]]
    with pytest.raises(BenchmarkError) as error:
        load_benchmark("videomme", write(tmp_path / "q.parquet", kept))
    assert str(error.value) == (
        f"{tmp_path}/q.parquet: missing videoID, question_id, task_type, options, answer, duration, domain; "
        "there are question, choices"
    )
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "q.parquet").read_bytes()[:-20])
    for name, reason in (("broken", "Parquet magic bytes"), ("gone", "No such file")):
        with pytest.raises(BenchmarkError, match=rf"{name}\.parquet: not readable as parquet: .*{reason}") as error:
            load_benchmark("videomme", tmp_path / f"{name}.parquet")
        assert "\n" not in str(error.value)


def test_options_as_json_text(rows, tmp_path):
    texts = [row | {"options": json.dumps(row["options"])} for row in rows[:4]]
    asked = load_benchmark("videomme", write(tmp_path / "q.parquet", texts)).questions
    assert asked[0].options[2] == "Berries." and len(asked) == 4
    for text in ("A. x|B. y", '["A. x", 2]', '{"A": "x"}', "[" * 100_000):
        with pytest.raises(BenchmarkError, match=r"row 1: options must be a list, got ") as error:
            load_benchmark("videomme", write(tmp_path / "q.parquet", [texts[0] | {"options": text}]))
        assert len(str(error.value)) < 500


def test_an_answer_outside_the_options_is_kept_and_named(rows, tmp_path):
    bad = [rows[0], rows[1] | {"answer": "E"}, rows[2] | {"answer": "AB"}]
    benchmark = load_benchmark("videomme", write(tmp_path / "q.parquet", bad))
    assert [q.answer_index for q in benchmark.questions] == [2, None, None] and len(benchmark.questions) == 3
    assert benchmark.questions[1].answer == "E"
    (flaw,) = benchmark.flaws
    assert flaw.endswith("so every reply is wrong: 2 (videomme/1, videomme/2)") and flaw in str(check(benchmark))
