"""A user's own question files, and what is wrong with them."""

from __future__ import annotations

import json
import math

import pyarrow
import pytest
from pyarrow import parquet

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.types import Clip

OPEN = "video_name,question,answer,question_id\n"
CHOICE = "video_name,question,answer,a0,a1\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("open", "video_name,answer\na,b\n", r"q\.csv, row 1: missing question; there are video_name, answer"),
        ("choice", "video_name,question,answer\na,b,c\n", r"row 1: missing a0, a1, \.\.\. \(or candidates\)"),
        ("open", OPEN, "no questions in it"),
        ("open", OPEN + "a,q,x,1\na,q,y,1\n", "row 2: the same video_name, question_id and question as row 1"),
        ("open", OPEN + 'a,q,"x,1\na,q2,y,2\n', r"q\.csv, line \d: not readable as CSV"),
        ("choice", "video_name,question,answer,candidates\na,q,x,x|y\n", "row 1: candidates must be a list, got"),
        ("choice", CHOICE.replace("a1", "a1,a2") + "a,q,y,x,,y\n", "row 1: option a1 is empty, but a later one is not"),
        ("open", OPEN + "../a,q,x,1\n", "row 1: video_name '../a' does not name a video inside"),
        ("open", OPEN + "/etc/a,q,x,1\n", "row 1: video_name '/etc/a' does not name"),
        ("open", OPEN + "a\\..\\b,q,x,1\n", "does not name a video inside"),
        ("open", OPEN + "a,,x,1\n", "row 1: question is empty"),
        ("open", OPEN + "a,q,x\n", "row 1: needed 4 fields as in the header, got more or fewer"),
        ("open", OPEN + "a,q,x,1,2\n", "row 1: needed 4 fields"),
        ("open", "answer,answer\n", "column 'answer' occurs twice in the header"),
        ("choice", CHOICE + "a,q,z,x,y\n", "row 1: answer 'z' is none of the options 'x', 'y'"),
        ("choice", CHOICE.replace("a1", "a1,answer_number") + "a,q,y,x,y,0\n", "answer_number 0 is not the option 'y'"),
        (
            "choice",
            CHOICE + "a,q,B,x,y\n",
            r"row 1: answer 'B' is none .*; answer must be the option's text, not its letter",
        ),
        (
            "choice",
            CHOICE + "a,q,x,x,y\nb,q,1,x,y\n",
            "row 2: answer '1' is none of .*option's text, not its letter or number",
        ),
        (
            "choice",
            CHOICE.replace("a1", "a1,answer_number") + "a,q,(B),x,y,1\n",
            "not the option '\\(B\\)'; answer must be",
        ),
        ("open", "video_name;question;answer\na;where, to?;x\n", "needed a CSV file separated by commas, .* by ';'"),
        ("open", '"video_name"\t"question"\t"answer"\na\tq\tx\n', r"separated by commas, got one separated by '\\t'"),
        ("open", b"video_name,question,answer\na,caf\xe9,b\n", r"q\.csv: needed UTF-8, got byte 0xe9 at 32"),
    ],
)
def test_bad_question_files(tmp_path, name, text, message):
    path = tmp_path / "q.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark(name, path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"val_q.json": "{"}, r"val_q\.json: not readable as JSON"),
        ({"val_q.json": "{}"}, "needed a list of objects"),
        ({"val_q.json": '[{"question": 1, "question": 2}]'}, "key 'question' occurs twice in one object"),
        ({"val_q.json": "[]"}, r"val_a\.json: cannot read the question file"),
        ({"val_q.json": "[{}]", "val_a.json": "[]"}, r"val_a\.json: needed 1 answers, one per question, got 0"),
        (
            {"val_q.json": '[{"question_id": "1"}]', "val_a.json": '[{"question_id": "2"}]'},
            "row 1: needed question_id '1', got '2'",
        ),
    ],
)
def test_bad_json(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("open", tmp_path / "val_q.json")


def test_rows_may_have_fewer_options_than_columns(tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question,answer,a0,a1,a2,a3\na,q,y,x,y,,\n")
    assert load_benchmark("choice", tmp_path / "q.csv").questions[0].options == ("x", "y")
    rows = [{"video_name": "a", "question": "q", "answer": 2, "candidates": [1, 2]}]
    (tmp_path / "val_qa.json").write_text(json.dumps(rows))
    assert load_benchmark("choice", tmp_path / "val_qa.json").questions[0].answer_index == 1


def test_a_folder_may_hold_one_question_file(tmp_path):
    with pytest.raises(BenchmarkError, match="needed a question file, got a folder with 0 of them"):
        load_benchmark("open", tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "q.csv").write_text(OPEN + "a,first?,x,1\nb,second?,y,1\n")
    questions = load_benchmark("open", tmp_path).questions
    assert [(q.key, q.video, q.text, q.id) for q in questions] == [
        ("open/0", "a", "first?", "1"),
        ("open/1", "b", "second?", "1"),
    ]
    (tmp_path / "val_qa.json").write_text("[]")
    with pytest.raises(BenchmarkError, match="got a folder with 2 of them"):
        load_benchmark("open", tmp_path)


def test_the_row_of_an_error_is_counted_from_one(tmp_path):
    (tmp_path / "q.csv").write_text(OPEN + "a,q,x,1\nb,q,x,1\nc, ,x,1\n")
    with pytest.raises(BenchmarkError, match=r"q\.csv, row 3: question is empty"):
        load_benchmark("open", tmp_path / "q.csv")
    rows = [{"question_id": "1", "question": "q", "video_name": "a"}]
    (tmp_path / "val_q.json").write_text(json.dumps([*rows, {"question_id": "2"}]))
    (tmp_path / "val_a.json").write_text(json.dumps([{"question_id": "1"}, {"question_id": "3"}]))
    with pytest.raises(BenchmarkError, match=r"val_a\.json, row 2: needed question_id '2', got '3'"):
        load_benchmark("open", tmp_path / "val_q.json")


def test_options_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"a{i}" for i in range(12)]
    header = ",".join(["video_name", "question", "answer", "answer_number", *reversed(names)])
    (tmp_path / "q.csv").write_text(
        f"{header}\na,q,option 10,10,{','.join(f'option {n[1:]}' for n in reversed(names))}\n"
    )
    (question,) = load_benchmark("choice", tmp_path / "q.csv").questions
    assert question.options == tuple(f"option {i}" for i in range(12)) and question.answer_index == 10


@pytest.mark.parametrize("number", [2, 3])
def test_an_answer_number_is_that_of_an_option(tmp_path, number):
    (tmp_path / "q.csv").write_text(f"video_name,question,answer,answer_number,a0,a1\na,q,y,{number},x,y\n")
    with pytest.raises(BenchmarkError, match=f"row 1: answer_number {number} is not the option 'y'$"):
        load_benchmark("choice", tmp_path / "q.csv")


BOUNDS = OPEN.replace("\n", ",start,end\n")


def test_bounds_and_subtitles_of_a_user_s_file(tmp_path):
    (tmp_path / "q.csv").write_text(
        BOUNDS.replace("\n", ",subtitles\n")
        + "a,q1,x,1,2.5,10,\na,q2,x,2,,4,a.srt\na,q3,x,3,1e1,,sub/b.json\na,q4,x,4,,,\na,q5,x,5, 0 ,3,\n"
    )
    questions = load_benchmark("open", tmp_path / "q.csv").questions
    assert [q.clip for q in questions] == [Clip(2.5, 10), Clip(None, 4), Clip(10, None), None, Clip(0, 3)]
    assert [q.subtitle_file for q in questions] == ["", "a.srt", "sub/b.json", "", ""]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ("-1,5", "start must be at least 0 seconds, got -1"),
        ("3,3", "end must be after the start at 3 seconds, got 3"),
        ("3,2.5", "end must be after the start at 3 seconds, got 2.5"),
        (",0", "end must be after the start at 0 seconds, got 0"),
        ("soon,5", "start must be a number, got 'soon'"),
        ("0:05,9", "start must be a number, got '0:05'"),
        ("1,inf", "end must be a number, got 'inf'"),
        ("nan,5", "start must be a number, got 'nan'"),
    ],
)
def test_bad_bounds_are_named(tmp_path, bounds, message):
    (tmp_path / "q.csv").write_text(f"{BOUNDS}a,q,x,1,0,1\nb,q,x,2,{bounds}\n")
    with pytest.raises(BenchmarkError, match=rf"q\.csv, row 2: {message}$"):
        load_benchmark("open", tmp_path / "q.csv")


def test_a_frame_rate_is_part_of_the_clip(tmp_path):
    header = BOUNDS.replace("\n", ",fps\n")
    (tmp_path / "q.csv").write_text(f"{header}a,q,x,1,0,1,3\nb,q,x,2,,,3\n")
    assert [q.clip for q in load_benchmark("open", tmp_path / "q.csv").questions] == [Clip(0, 1, 3), Clip(fps=3)]
    (tmp_path / "q.csv").write_text(f"{header}a,q,x,1,0,1,0\n")
    with pytest.raises(BenchmarkError, match="row 1: fps must be above 0, got 0"):
        load_benchmark("open", tmp_path / "q.csv")


def test_one_question_about_two_clips_is_two_questions(tmp_path):
    (tmp_path / "q.csv").write_text(f"{BOUNDS}a,q,x,1,0,1\na,q,x,1,1,2\n")
    assert len(load_benchmark("open", tmp_path / "q.csv").questions) == 2
    (tmp_path / "q.csv").write_text(f"{BOUNDS}a,q,x,1,0,1\na,q,x,1,0,1\n")
    with pytest.raises(BenchmarkError, match="row 2: the same video_name, question_id and question as row 1"):
        load_benchmark("open", tmp_path / "q.csv")


def test_a_user_s_parquet_file(tmp_path):
    rows = [
        {"video_name": "a", "question": "q1", "answer": "y", "candidates": ["x", "y"], "start": 1.0, "end": 2.0},
        {"video_name": "b", "question": "q2", "answer": "x", "candidates": ["x", "y", "z"], "start": math.nan, "end": None},
    ]  # fmt: skip
    schema = pyarrow.Table.from_pylist(rows).schema.append(pyarrow.field("video", pyarrow.binary()))
    table = pyarrow.Table.from_pylist([row | {"video": b"x" * 100} for row in rows], schema)
    parquet.write_table(table, tmp_path / "q.parquet")
    for path in (tmp_path / "q.parquet", tmp_path):
        first, second = load_benchmark("choice", path).questions
        assert (first.options, first.answer_index, first.clip) == (("x", "y"), 1, Clip(1, 2))
        assert (second.video, second.options, second.clip) == ("b", ("x", "y", "z"), None)
    parquet.write_table(table.drop(["answer"]), tmp_path / "q.parquet")
    with pytest.raises(BenchmarkError, match=r"q\.parquet: missing answer; there are video_name, question, candidates"):
        load_benchmark("choice", tmp_path / "q.parquet")


def test_options_as_json_text(tmp_path):
    header = "video_name,question,answer,candidates\n"
    (tmp_path / "q.csv").write_text(header + 'a,q,y,"[""x"", ""y""]"\n')
    assert load_benchmark("choice", tmp_path / "q.csv").questions[0].options == ("x", "y")
    for text in ('"[""x"", 2]"', '"[""x"""', "7", '"{""x"": 1}"'):
        (tmp_path / "q.csv").write_text(f"{header}a,q,y,{text}\n")
        with pytest.raises(BenchmarkError, match=r"q\.csv, row 1: candidates must be a list, got "):
            load_benchmark("choice", tmp_path / "q.csv")
