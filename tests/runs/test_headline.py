"""A run of a benchmark whose official number is a mean over groups, from the question file to what is printed."""

from __future__ import annotations

import json

import pytest
from grouped_runs import BY_TYPE, FORMS, OPTIONS, RIGHT, add_benchmark
from small_runs import SMALL, run

from sfllava.analysis.breakdown import headlines
from sfllava.analysis.compare import compare
from sfllava.analysis.loading import load_results
from sfllava.benchmarks.base import Benchmark
from sfllava.runs.run_folder import read_run
from sfllava.types import Question


def questions_of(*kinds):
    """Two choice questions of each type about each of three videos."""
    return [
        Question("what?", f"tasks/{kind}/{video}{i}", video, "x", ("x", "y"), 0, type=kind, task="choice")
        for kind in kinds for video in "abc" for i in range(2)
    ]  # fmt: skip


def test_a_run_with_a_limit_says_which_groups_its_headline_lacks(monkeypatch, models, videos, tmp_path):
    add_benchmark(monkeypatch, BY_TYPE)
    benchmark = Benchmark(BY_TYPE, questions_of("plot", "needle", "count"), videos)
    done = run(models(), benchmark, tmp_path / "run", limit=8)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    headline = scores[SMALL.name]["headline"]
    missing = "no questions of: count; not all of: needle 2 of 6"
    assert (headline["name"], headline["groups"], headline["missing"]) == ("M-Avg", "2 types", missing)
    assert f"M-Avg: mean over 2 types\n{missing}" in str(done) and f" {100 * headline['together']:.1f} " in str(done)
    assert read_run(tmp_path / "run")["sessions"][0]["headline_sizes"] == {"plot": 6, "needle": 6, "count": 6}
    # what is loaded later says the same
    (row,) = headlines(load_results(tmp_path / "run")).to_dict("records")
    assert row["value"] == pytest.approx(100 * headline["accuracy"]) and row["missing"] == missing
    assert row["accuracy"] == pytest.approx(100 * headline["together"])
    assert f"\n{missing}\n" in str(compare([tmp_path / "run"]))
    # the rest is asked into another folder, and nothing is missing
    run(models(), benchmark, tmp_path / "whole")
    assert headlines(load_results(tmp_path / "whole"))["missing"].tolist() == [""]


def test_a_run_of_several_tasks_is_scored_task_by_task(monkeypatch, models, videos, tmp_path):
    add_benchmark(monkeypatch, FORMS)
    asked = [
        Question(
            "which?", f"forms/{task}/{video}", video, RIGHT[task], tuple(options), (options and 0) or None, type="action",
            task=task, groups={"form": task, "dimension": "action"},
        )
        for task, options in OPTIONS.items() for video in "abc"
    ]  # fmt: skip
    done = run(models(), Benchmark(FORMS, asked, videos), tmp_path / "run")
    rules = done.scores[SMALL.name]["rules"]
    assert {name: rule["questions"] for name, rule in rules.items()} == {
        "choice-published": 3, "choice-strict": 3, "yes-no": 3, "caption": 3,
    }  # fmt: skip
    results = load_results(tmp_path / "run")
    right = results.groupby("form", observed=True)["correct"].sum().to_dict()
    assert right == {
        "choice": rules["choice-strict"]["correct"], "yes_no": rules["yes-no"]["correct"],
        "caption_matching": rules["caption"]["correct"],
    }  # fmt: skip
    assert "mean over 3 groups by form and dimension" in str(done)


def test_a_benchmark_without_a_headline_records_none(models, benchmark, tmp_path):
    done = run(models(), benchmark, tmp_path / "run")
    assert "headline_sizes" not in read_run(tmp_path / "run")["sessions"][0]
    assert "headline" not in done.scores[SMALL.name] and "mean over" not in str(done)
