"""Benchmarks by name, and where their files are looked for."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from sfllava.benchmarks import BenchmarkError, benchmark_names, find_benchmark, load_benchmark
from sfllava.types import SfllavaError

OPEN = "video_name,question,answer,question_id\n"


def test_unknown_names_and_places(tmp_path):
    with pytest.raises(
        SfllavaError, match=r"no benchmark is called .msvdd. .did you mean 'msvd'..; choose from activitynet, choice"
    ):
        load_benchmark("msvdd")
    assert {
        "msvd",
        "msrvtt",
        "tgif",
        "activitynet",
        "nextqa",
        "egoschema",
        "intentqa",
        "vcgbench",
        "open",
        "choice",
    } <= set(benchmark_names())
    with pytest.raises(BenchmarkError, match="needed a question file, or a root folder"):
        load_benchmark("msvd")
    with pytest.raises(BenchmarkError, match=r"no question file under .* looked at .*open_ended_qa/MSVD_QA\.csv"):
        load_benchmark("msvd", root=tmp_path)
    (tmp_path / "q.csv").write_text(OPEN + "a,q,x,1\n")
    with pytest.raises(BenchmarkError, match="nowhere: no such folder of videos"):
        load_benchmark("open", tmp_path / "q.csv", "nowhere")


def test_names_are_listed_without_importing_anything_large():
    heavy = "{'numpy', 'torch', 'av', 'sfllava.benchmarks.tgif', 'sfllava.benchmarks.shapesqa'}"
    code = f"import sys; from sfllava.benchmarks import *; print(*benchmark_names()); assert not {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == benchmark_names() == sorted(benchmark_names())


def test_a_benchmark_is_one_file_with_a_spec(tmp_path):
    shutil.copytree(ROOT / "sfllava", tmp_path / "sfllava", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    folder = tmp_path / "sfllava" / "benchmarks"
    (folder / "mine.py").write_text(
        "from sfllava.benchmarks.spec import Spec\n\nSPEC: Spec = Spec(name='mine', task='open', question_count=1)\n"
    )
    (folder / "helper.py").write_text("# what a SPEC needs\n")
    (tmp_path / "q.csv").write_text(OPEN + "a,q,x,1\n")
    code = (
        "from sfllava.benchmarks import *; print(load_benchmark('mine', 'q.csv').questions[0].key, *benchmark_names())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["mine/0", *sorted([*benchmark_names(), "mine"])]


def test_files_are_looked_for_below_a_root_and_below_the_folders_of_the_published_code(tmp_path):
    for place in ("gt_qa_files/MSVD_Zero_Shot_QA", "data/video_qa/MSVD_Zero_Shot_QA/videos"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "gt_qa_files/MSVD_Zero_Shot_QA/test_q.json").write_text('[{"video_name": "a", "question": "q"}]')
    (tmp_path / "gt_qa_files/MSVD_Zero_Shot_QA/test_a.json").write_text('[{"answer": "x", "type": 3}]')
    benchmark = load_benchmark("msvd", root=tmp_path)
    assert benchmark.videos_dir == tmp_path / "data/video_qa/MSVD_Zero_Shot_QA/videos"
    assert [(q.text, q.answer, q.type) for q in benchmark.questions] == [("q", "x", "3")] and len(benchmark.files) == 2
    (tmp_path / "video_qa/MSVD_Zero_Shot_QA/videos").mkdir(parents=True)  # the first place counts
    assert load_benchmark("msvd", root=tmp_path).videos_dir == tmp_path / "video_qa/MSVD_Zero_Shot_QA/videos"


def test_a_loaded_benchmark_needs_its_videos_and_nothing_else(tmp_path):
    (tmp_path / "q.csv").write_text(OPEN + "a,q,x,1\n")
    loaded = load_benchmark("open", tmp_path / "q.csv", tmp_path)
    assert find_benchmark(loaded) is loaded
    for more in ({"questions": "q.csv"}, {"videos": "v"}, {"root": "r"}):
        with pytest.raises(
            BenchmarkError, match="open: root, questions, videos and subtitles are for a benchmark by name"
        ):
            find_benchmark(loaded, **more)
    with pytest.raises(BenchmarkError, match=r"open: no folder of videos was given or found$"):
        find_benchmark("open", tmp_path / "q.csv")
    (tmp_path / "EgoSchema").mkdir()
    (tmp_path / "EgoSchema" / "val_qa.json").write_text(
        '[{"video_name": "a", "question": "q", "answer": "x", "candidates": ["x"]}]'
    )
    with pytest.raises(
        BenchmarkError, match=r"egoschema: no folder of videos .*; looked at .*EgoSchema/video, .*/data/"
    ):
        find_benchmark("egoschema", root=tmp_path)
    with pytest.raises(BenchmarkError, match=r"https://host/x: needed a folder on this machine"):
        load_benchmark("open", tmp_path / "q.csv", root="https://host/x")
