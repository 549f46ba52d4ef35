"""TempCompass: the published files of its four forms, lmms-eval's parquet files, and errors."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pyarrow
import pytest
from pyarrow import parquet

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.evaluators import find_evaluator
from sfllava.runs.check import check

COUNTS = {"multi-choice": 1580, "yes_no": 2453, "caption_matching": 1503, "captioning": 2004}
TASKS = {"multi-choice": "choice", "yes_no": "yes_no", "caption_matching": "caption_matching"}


def read(folder, form):
    """The questions of a published file as a flat list of video, dimension, question and answer."""
    videos = json.loads((folder / f"{form}.json").read_text())
    return [
        {"video_id": video, "dim": dimension} | asked
        for video, dimensions in videos.items() for dimension, rows in dimensions.items() for asked in rows
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "qa/tempcompass/questions"


def test_the_published_counts(shared, folder):
    for name, questions in (("tempcompass", 5536), ("tempcompass_captioning", 2004)):
        found = check(load_benchmark(name, folder))
        assert found.ok and (found.questions, found.videos) == (questions, 410) and not found.flaws
        assert check(load_benchmark(name, root=shared / "qa")).questions == questions
    benchmark = load_benchmark("tempcompass", folder)
    assert Counter(q.groups["form"] for q in benchmark.questions) == {form: COUNTS[form] for form in TASKS}
    assert {q.groups["form"]: q.task for q in benchmark.questions} == TASKS
    assert {q.type for q in benchmark.questions} == {"action", "speed", "direction", "order", "attribute_change"}
    assert len({q.key for q in benchmark.questions}) == 5536
    assert benchmark.spec.headline and benchmark.spec.headline.groups == ("form", "dimension")


@pytest.mark.parametrize("form", COUNTS)
def test_every_question_matches_its_row(folder, form):
    name = "tempcompass_captioning" if form == "captioning" else "tempcompass"
    benchmark = load_benchmark(name, folder / f"{form}.json")
    assert len(benchmark.questions) == COUNTS[form] and check(benchmark).ok
    for q, row in zip(benchmark.questions, read(folder, form), strict=True):
        assert (q.video, q.type, q.groups) == (row["video_id"], row["dim"], {"form": form, "dimension": row["dim"]})
        if form in ("yes_no", "captioning"):
            assert (q.text, q.answer, q.options) == (row["question"], row["answer"], ())
            continue
        text, *lines = row["question"].split("\n")
        right = [line.strip() == row["answer"].strip() for line in lines]
        assert q.text == text and q.answer_index == right.index(True) and q.answer == q.options[q.answer_index]
        ours = [option.replace(" ", "") for option in q.options]
        if form == "multi-choice":  # three of the lines have an extra or missing space
            ours = [f"{letter}.{option}" for letter, option in zip("ABCD", ours, strict=False)]
        assert ours == [line.replace(" ", "") for line in lines]


def test_questions_in_full(folder):
    by_key = {q.key: q for q in load_benchmark("tempcompass", folder).questions}
    choice, yes_no, captions = (by_key[f"tempcompass/{form}/0"] for form in TASKS)
    assert (choice.text, choice.answer) == ("What is the man doing in the video?", "dunking a basketball")
    assert choice.options == ("dunking a basketball", "dribbling a basketball", "passing a basketball")
    assert (yes_no.text, yes_no.answer, yes_no.options) == ("Is the man dunking?", "yes", ())
    assert captions.text == "Which description is a more suitable match for the video?"
    assert captions.options == (
        "Option 1: The man is dribbling a basketball.", "Option 2: A man is dunking a basketball.",
    )  # fmt: skip
    assert (captions.answer, captions.answer_index) == (captions.options[1], 1)


def test_the_right_reply_is_right_by_each_form_s_rule(folder):
    replies = {"choice": lambda q: "ABCD"[q.answer_index], "yes_no": lambda q: q.answer.capitalize()}
    replies["caption_matching"] = lambda q: q.answer.partition(":")[0]
    for q in load_benchmark("tempcompass", folder).questions:
        evaluator = find_evaluator(q.task)
        assert evaluator and evaluator.grade_quickly(q.answer, q.options, replies[q.task](q)) == (True, True), q.key


def test_the_parquet_files_of_lmms_eval(folder, tmp_path):
    for form in COUNTS:
        (tmp_path / form).mkdir()
        table = pyarrow.Table.from_pylist(read(folder, form))
        parquet.write_table(table, tmp_path / form / "test-00000-of-00001.parquet")
    for name in ("tempcompass", "tempcompass_captioning"):
        benchmark = load_benchmark(name, tmp_path)
        assert benchmark.questions == load_benchmark(name, folder).questions and check(benchmark).ok
    one = load_benchmark("tempcompass", tmp_path / "yes_no/test-00000-of-00001.parquet")
    assert {q.task for q in one.questions} == {"yes_no"}


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("yes_no", [], r"yes_no\.json: needed an object of videos, got list"),
        ("yes_no", {"1": []}, r"yes_no\.json, video 1: needed an object of dimensions, got list"),
        ("yes_no", {"1": {"speed": {}}}, r"yes_no\.json, video 1, speed: needed a list of questions, got dict"),
        ("yes_no", {"1": {"speed": ["x"]}}, "video 1, speed, question 1: needed an object, got str"),
        ("yes_no", {"1": {"speed": [{"question": "x"}]}}, "speed, question 1: missing answer; there are question"),
        ("yes_no", {"1": {"speed": [{"question": "x", "answer": "maybe"}]}}, "answer must be yes or no, got 'maybe'"),
        ("yes_no", {"../1": {"speed": [{"question": "x", "answer": "no"}]}}, "does not name a video inside"),
        ("multi-choice", {"1": {"speed": [{"question": "x?", "answer": "A. y"}]}}, "needed a question with options"),
        (
            "multi-choice",
            {"1": {"speed": [{"question": "x?\nA. y\nC. z", "answer": "A. y"}]}},
            "video 1, speed, question 1: needed an option that begins with B., got 'C. z'",
        ),
        ("caption_matching", {"1": {"speed": [{"question": "x?", "answer": "y"}]}}, "needed a question and two captions"),
    ],
)  # fmt: skip
def test_a_bad_question_is_named(folder, tmp_path, form, content, message):
    copy = shutil.copytree(folder, tmp_path / "questions")
    (copy / f"{form}.json").chmod(0o600)
    (copy / f"{form}.json").write_text(json.dumps(content))
    with pytest.raises(BenchmarkError, match=message) as error:
        load_benchmark("tempcompass", copy)
    assert "\n" not in str(error.value)


def test_an_answer_outside_the_options_is_kept_and_named(tmp_path):
    rows = [{"question": "x?\nA. y\nB. z", "answer": answer} for answer in ("B. z", "B. y", "C. w")]
    (tmp_path / "multi-choice.json").write_text(json.dumps({"1": {"speed": rows}}))
    benchmark = load_benchmark("tempcompass", tmp_path / "multi-choice.json")
    assert [q.answer_index for q in benchmark.questions] == [1, None, None]
    assert "2 (tempcompass/multi-choice/1, tempcompass/multi-choice/2)" in str(check(benchmark))


def test_a_missing_form_is_named(folder, tmp_path):
    shutil.copy(folder / "yes_no.json", tmp_path)
    with pytest.raises(BenchmarkError, match=r"needed multi-choice\.json, the questions of one form"):
        load_benchmark("tempcompass", tmp_path)
    shutil.copy(folder / "yes_no.json", tmp_path / "mine.json")
    with pytest.raises(BenchmarkError, match=r"mine\.json: needed a file called multi-choice\.json, yes_no\.json, cap"):
        load_benchmark("tempcompass", tmp_path / "mine.json")
