from __future__ import annotations

import csv
import json
import shutil

import pytest
from shell import sfllava

from sfllava.benchmarks import BenchmarkError, benchmark_names, load_benchmark
from sfllava.runs.check import check
from sfllava.types import SfllavaError

COUNTS = {  # questions, videos: as the question files were published
    "msvd": (6415, 245),
    "msrvtt": (12278, 497),
    "tgif": (13691, 7132),
    "activitynet": (8000, 800),
    "nextqa": (4996, 570),
    "egoschema": (500, 500),
    "intentqa": (2044, 524),
    "vcgbench": (1996 + 499 + 998, 499),
}


@pytest.mark.parametrize("name", COUNTS)
def test_real_question_files(shared, name):
    benchmark = load_benchmark(name, root=shared / "qa")
    assert "MISSING: the folder of videos; looked at" in str(check(benchmark)) and not check(benchmark).ok
    files = benchmark.files[0].parent if name == "vcgbench" else benchmark.files[0]
    found = check(load_benchmark(name, files))
    assert (found.questions, found.videos) == COUNTS[name] and found.ok
    assert "as published" in str(found) and "videos were not looked for" in str(found)
    keys = [q.key for q in benchmark.questions]
    assert len(set(keys)) == len(keys)
    for q in benchmark.questions:
        assert (q.options[q.answer_index] == q.answer) if q.task == "choice" else not q.options  # type: ignore[index]


def test_tgif_keeps_all_rows_though_its_ids_repeat(shared):
    questions = load_benchmark("tgif", root=shared / "qa").questions
    assert len({q.id for q in questions}) == 7132 and len({q.key for q in questions}) == 13691


def test_vcgbench_pairs(shared):
    questions = load_benchmark("vcgbench", root=shared / "qa").questions
    first, second = [q for q in questions if q.key.startswith("vcgbench/consistency/0/")]
    assert first.video == second.video and first.answer == second.answer and first.text != second.text
    assert {q.type for q in questions} == {"generic", "temporal", "consistency"}


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_prepared_json_equals_csv(shared, tmp_path):
    """The files that the published code's preparation writes, under gt_qa_files."""
    folder = tmp_path / "gt_qa_files"
    for name, source, out in (
        ("tgif", "open_ended_qa/TGIF_FrameQA.csv", "TGIF_Zero_Shot_QA"),
        ("nextqa", "multiple_choice_qa/NExT_QA.csv", "NExTQA"),
    ):
        rows = rows_of(shared / "qa" / source)
        (folder / out).mkdir(parents=True)
        if name == "tgif":
            asked = [{k: r[k] for k in ("video_name", "question_id", "question")} for r in rows]
            told = [
                {"answer": r["answer"], "type": int(r["question_type"]), "question_id": r["question_id"]} for r in rows
            ]
            (folder / out / "val_q.json").write_text(json.dumps(asked))
            (folder / out / "val_a.json").write_text(json.dumps(told))
        else:
            prepared = [
                {
                    "task_name": "NExTQA",
                    "video_name": f"{r['video_name']}.mp4",
                    "question_id": r["question_id"],
                    "question": r["question"],
                    "answer_number": int(r["answer_number"]),
                    "candidates": [r[f"a{i}"] for i in range(5)],
                    "answer": r["answer"],
                }
                for r in rows
            ]
            (folder / out / "val_qa.json").write_text(json.dumps(prepared))
        one, other = load_benchmark(name, root=tmp_path), load_benchmark(name, root=shared / "qa")
        for a, b in zip(one.questions, other.questions, strict=True):
            assert (a.key, a.text, a.answer, a.options, a.answer_index, a.id) == (
                b.key,
                b.text,
                b.answer,
                b.options,
                b.answer_index,
                b.id,
            )
            assert a.video.removesuffix(".mp4") == b.video


def test_vcgbench_json(shared, tmp_path):
    source = shared / "qa" / "text_generation_benchmark"
    one, two = rows_of(source / "Consistency_QA1.csv"), rows_of(source / "Consistency_QA2.csv")

    def prepared(rows, question):
        return [
            {
                "video_name": row["video_name"][2:],
                "question_id": row["question_id"],
                "question": question(i, row),
                "answer": row["answer"],
            }
            for i, row in enumerate(rows)
        ]

    names = {"Generic_QA.csv": "generic", "Temporal_QA.csv": "temporal_understanding"}
    for file, name in names.items():
        rows = prepared(rows_of(source / file), lambda i, r: r["question"])
        (tmp_path / f"Video-ChatGPT-{name}_val_qa.json").write_text(json.dumps(rows))
    pairs = prepared(one, lambda i, r: [r["question"], two[i]["question"]])
    (tmp_path / "Video-ChatGPT-consistency_val_qa.json").write_text(json.dumps(pairs))
    a, b = load_benchmark("vcgbench", tmp_path).questions, load_benchmark("vcgbench", source).questions
    assert [(q.key, q.text, q.answer) for q in a] == [(q.key, q.text, q.answer) for q in b]


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
        ("open", OPEN + "a,q,x\n", "row 1: needed 4 fields as in the header, got another number"),
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


def test_finding_videos(videos, tmp_path):
    folder = tmp_path / "videos"
    for place in (
        "plain.mp4",
        "0101/nested.mp4",
        "v_prefixed.mkv",
        "deep/er/UPPER.MP4",
        "clip.v2.mp4",
        "ütf/名前.mp4",
        "two.avi",
        "two.mp4",
        "x/same.mp4",
        "y/same.mp4",
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / "a.mp4", folder / place)
    (folder / "frames_of_it").mkdir()
    (folder / "frames_of_it" / "0.jpg").touch()
    (folder / "loop").symlink_to(folder)
    (tmp_path / "q.csv").write_text(OPEN + "plain,q,x,1\n")
    benchmark = load_benchmark("open", tmp_path / "q.csv", folder)
    for name, wanted in {
        "plain": "plain.mp4",
        "plain.mp4": "plain.mp4",
        "plain.avi": "plain.mp4",
        "nested": "0101/nested.mp4",
        "0101/nested": "0101/nested.mp4",
        "prefixed": "v_prefixed.mkv",
        "v_prefixed": "v_prefixed.mkv",
        "v_plain": "plain.mp4",
        "UPPER": "deep/er/UPPER.MP4",
        "clip.v2": "clip.v2.mp4",
        "名前": "ütf/名前.mp4",
        "frames_of_it": "frames_of_it",
        "two": "two.mp4",
        "two.avi": "two.avi",
    }.items():
        assert benchmark.find_video(name) == folder / wanted, name
    assert benchmark.find_video("y/same") == folder / "y/same.mp4"
    with pytest.raises(BenchmarkError, match=r"same: more than one such video: .*x/same\.mp4, .*y/same\.mp4"):
        benchmark.find_video("same")
    with pytest.raises(BenchmarkError, match="absent: no such video under"):
        benchmark.find_video("absent")


@pytest.fixture
def linked(videos, tmp_path):
    """A folder of videos that is a link, with a link inside to each kind of thing outside, and one that stays in."""
    outside, inside = tmp_path / "outside", tmp_path / "disk"
    for folder in (outside / "frames", inside / "half"):
        folder.mkdir(parents=True)
    shutil.copy(videos / "a.mp4", outside / "secret.mp4")
    shutil.copy(videos / "b.mp4", inside / "b.mp4")
    (outside / "frames" / "0.jpg").touch()
    for link, to in {
        "file.mp4": outside / "secret.mp4",
        "part": outside,
        "half/0.jpg": outside / "frames" / "0.jpg",
        "again.mp4": inside / "b.mp4",
    }.items():
        (inside / link).symlink_to(to)
    (tmp_path / "videos").symlink_to(inside)
    (tmp_path / "q.csv").write_text(OPEN + "b,q,x,1\nagain,q,x,1\nsecret,q,x,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "link", "found"),
    [
        ("file", "file.mp4", "file.mp4"),
        ("secret", "part", "part/secret.mp4"),
        ("frames", "part", "part/frames"),
        ("half", "half/0.jpg", "half"),
    ],
)
def test_links_out_of_the_folder_of_videos_are_followed_when_told(linked, name, link, found):
    where = (linked / "q.csv", linked / "videos")
    benchmark = load_benchmark("open", *where)
    with pytest.raises(SfllavaError, match=rf"{name}: .*/videos/{link} leads out of .* to .*/outside.* --follow-links"):
        benchmark.find_video(name)
    assert benchmark.find_video("b").name == "b.mp4" and benchmark.find_video("again").name == "again.mp4"
    follows = load_benchmark("open", *where, follow_links=True)
    assert follows.find_video(name) == linked / "videos" / found


def test_the_command_line_says_how_links_are_followed(linked):
    where = ("check", "open", "--questions", linked / "q.csv", "--videos", linked / "videos")
    refused = sfllava(*where)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "videos/part leads out of the folder of videos" in refused.stdout and "--follow-links" in refused.stdout
    followed = sfllava(*where, "--follow-links")
    assert followed.returncode == 0 and "found and readable 3, missing 0" in followed.stdout


def test_a_link_out_of_the_folder_stops_a_run_before_it_begins(linked):
    out = linked / "run"
    where = ("evaluate", "open", "--questions", linked / "q.csv", "--videos", linked / "videos", "--out", out)
    refused = sfllava(*where, "--model", "tiny")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and not out.exists()
    assert "videos/part leads out of the folder of videos" in refused.stderr and "--follow-links" in refused.stderr


def test_check_lists_what_is_missing_and_unreadable(videos, tmp_path):
    folder = shutil.copytree(videos, tmp_path / "videos")
    (folder / "bad.mp4").write_text("no video")
    (tmp_path / "q.csv").write_text(OPEN + "".join(f"{name},q,x,1\n" for name in ("a", "bad", "gone", "b")))
    found = check(load_benchmark("open", tmp_path / "q.csv", folder), progress=False)
    assert not found.ok and found.missing == ["gone"] and len(found.unreadable) == 1
    assert "found and readable 2, missing 1, unreadable 1" in str(found)
    assert "missing: gone" in str(found) and "bad.mp4: not a readable video" in str(found)


def test_a_wrong_count_is_seen(shared, tmp_path):
    lines = (shared / "qa/multiple_choice_qa/EgoSchema.csv").read_text().splitlines()
    (tmp_path / "ego.csv").write_text("\n".join(lines[:-1]))
    found = check(load_benchmark("egoschema", tmp_path / "ego.csv"))
    assert not found.ok and "499, needed 500: WRONG" in str(found)


def test_rows_may_have_fewer_options_than_columns(tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question,answer,a0,a1,a2,a3\na,q,y,x,y,,\n")
    assert load_benchmark("choice", tmp_path / "q.csv").questions[0].options == ("x", "y")
    rows = [{"video_name": "a", "question": "q", "answer": 2, "candidates": [1, 2]}]
    (tmp_path / "val_qa.json").write_text(json.dumps(rows))
    assert load_benchmark("choice", tmp_path / "val_qa.json").questions[0].answer_index == 1


def test_unknown_names_and_places(tmp_path):
    with pytest.raises(SfllavaError, match="no benchmark is called 'msvdd'; there are activitynet, choice"):
        load_benchmark("msvdd")
    assert set(COUNTS) | {"open", "choice"} <= set(benchmark_names())
    with pytest.raises(BenchmarkError, match="needed a question file, or a root folder"):
        load_benchmark("msvd")
    with pytest.raises(BenchmarkError, match=r"no question file under .* looked at .*open_ended_qa/MSVD_QA\.csv"):
        load_benchmark("msvd", root=tmp_path)
    (tmp_path / "q.csv").write_text(OPEN + "a,q,x,1\n")
    with pytest.raises(BenchmarkError, match="nowhere: no such folder of videos"):
        load_benchmark("open", tmp_path / "q.csv", "nowhere")
