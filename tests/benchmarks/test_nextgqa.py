"""NExT-GQA: the published CSV files."""

from __future__ import annotations

import csv

import pytest

from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.runs.check import check


@pytest.mark.parametrize(("file", "questions", "videos"), [("test.csv", 5553, 990), ("val.csv", 3358, 567)])
def test_the_published_counts(shared, file, questions, videos):
    path = shared / "qa/nextgqa" / file
    benchmark = load_benchmark("nextgqa", path)
    found = check(benchmark)
    assert found.ok and (found.questions, found.videos) == (questions, videos) and str(found).count("as published") == 2
    with path.open(newline="", encoding="utf-8") as rows:
        for q, row in zip(benchmark.questions, csv.DictReader(rows), strict=True):
            assert (q.id, q.video, q.text, q.answer) == (row["qid"], row["video_id"], row["question"], row["answer"])
            assert q.options == tuple(row[f"a{i}"] for i in range(5)) and q.options.index(q.answer) == q.answer_index
            assert q.type == row["type"] and q.type in benchmark.spec.types


def test_the_test_set_is_the_default(shared):
    benchmark = load_benchmark("nextgqa", root=shared / "qa")
    assert benchmark.files == [shared / "qa/nextgqa/test.csv"]
    first = benchmark.questions[0]
    assert (first.video, first.id, first.type, first.answer_index) == ("2574374895", "8", "TN", 2)


def test_an_answer_outside_the_options_is_kept_and_named(tmp_path):
    header = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    (tmp_path / "test.csv").write_text(f"{header}1,9,4,4,what,six,2,CW,a,b,c,d,e\n")
    benchmark = load_benchmark("nextgqa", tmp_path / "test.csv")
    assert benchmark.questions[0].answer_index is None and "1 (nextgqa/0)" in str(check(benchmark))
    (tmp_path / "test.csv").write_text("video_id,question\n1,what\n")
    with pytest.raises(BenchmarkError, match="row 1: missing qid, type, answer, a0, a1, a2, a3, a4; there are"):
        load_benchmark("nextgqa", tmp_path / "test.csv")
