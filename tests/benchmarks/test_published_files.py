"""The question files as they were published, and as the published code prepares them."""

from __future__ import annotations

import csv
import json

import pytest

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.runs.check import check

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
    assert "as published" in str(found) and "videos were not checked" in str(found)
    keys = [q.key for q in benchmark.questions]
    assert len(set(keys)) == len(keys)
    for q in benchmark.questions:
        assert (q.options[q.answer_index] == q.answer) if q.task == "choice" else not q.options  # type: ignore[index]


def test_a_wrong_count_is_seen(shared, tmp_path):
    lines = (shared / "qa/multiple_choice_qa/EgoSchema.csv").read_text().splitlines()
    (tmp_path / "ego.csv").write_text("\n".join(lines[:-1]))
    found = check(load_benchmark("egoschema", tmp_path / "ego.csv"))
    assert not found.ok and "499, expected 500: WRONG" in str(found)


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


def write_vcgbench(folder, **changes):
    """The smallest VCGBench: one row in each CSV file, or the text given in `changes`."""
    for name in ("Generic_QA", "Temporal_QA", "Consistency_QA1", "Consistency_QA2"):
        text = changes.get(name, f"video_name,question,answer,question_id\nv_a,{name}?,x,1\n")
        (folder / f"{name}.csv").write_text(text)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "Consistency_QA2",
            "a,q,x,1\nb,q,x,2\n",
            r"Consistency_QA2\.csv: needed 1 rows as in Consistency_QA1\.csv, got 2",
        ),
        ("Consistency_QA2", "a,q,x,7\n", r"Consistency_QA2\.csv, row 1: needed question_id '1', got '7'"),
        ("Temporal_QA", "a,q,x,1\nb,,x,2\n", r"Temporal_QA\.csv, row 2: question is empty"),
    ],
)
def test_bad_vcgbench_files(tmp_path, name, rows, message):
    write_vcgbench(tmp_path)
    keys = [q.key for q in load_benchmark("vcgbench", tmp_path).questions]
    pair = ["vcgbench/consistency/0/1", "vcgbench/consistency/0/2"]
    assert keys == ["vcgbench/generic/0", "vcgbench/temporal/0", *pair]
    write_vcgbench(tmp_path, **{name: "video_name,question,answer,question_id\n" + rows})
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("vcgbench", tmp_path)


def test_a_pair_of_vcgbench_has_two_texts(tmp_path):
    write_vcgbench(tmp_path)
    row = {"video_name": "v_a", "question": ["one"], "answer": "x"}
    (tmp_path / "Video-ChatGPT-consistency_val_qa.json").write_text(json.dumps([row]))
    with pytest.raises(BenchmarkError, match=r"consistency_val_qa\.json, row 1: question must be a pair"):
        load_benchmark("vcgbench", tmp_path)
    with pytest.raises(BenchmarkError, match="needed the folder with VCGBench's question files"):
        load_benchmark("vcgbench", tmp_path / "Generic_QA.csv")
