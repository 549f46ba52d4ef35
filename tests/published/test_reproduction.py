"""The paper's numbers next to ours: selection, results of run folders, and the page."""

from __future__ import annotations

import gc
import json
import weakref
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from judged_runs import quick, vcgbench_rows
from judged_runs import write_rows as write_judged_rows

from sfllava.analysis import stats
from sfllava.models.load import load_model
from sfllava.models.sizes import sizes_of
from sfllava.prompts import pack_prompt
from sfllava.published.reproduction.experiments import choices, choose_experiments
from sfllava.published.reproduction.paper import paper_numbers
from sfllava.published.reproduction.plan import plan_runs
from sfllava.published.reproduction.report import to_frame, write_report
from sfllava.published.reproduction.results import read_results
from sfllava.published.reproduction.run import Problems, answer_runs
from sfllava.runs.judge import judge
from sfllava.types import SfllavaError

MAIN = "50frms-slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
FAST_8 = "50frms-slowfast-slow_10frms_spatial_1d_max_pool-fast_8x8"


def write_run(folder, benchmark, rows, size="7b", **identity):
    """A run folder as from the paper's model, with rows by setting."""
    folder.mkdir(parents=True)
    model = {
        "shape": sizes_of(size).shape.to_dict(),
        "dtype": "torch.float16",
        "rope": {"type": "dynamic", "factor": 2.0},
    }
    names = dict.fromkeys(row["setting"] for row in rows)
    settings = [{"name": name, "frames": 50, "aggregation": name.partition("-")[2]} for name in names]
    about = {
        "benchmark": benchmark,
        "questions": len({row["key"] for row in rows}),
        "settings": settings,
        "model": model,
    }
    about |= {"prompt": "<video> {question} {options}", "max_new_tokens": 128, "read": "generate"} | identity
    (folder / "run.json").write_text(json.dumps({"identity": about, "sessions": [{"device": "cuda", "model": "a 7B"}]}))
    write_judged_rows(folder, rows)
    return folder


def choice_rows(replies, setting=MAIN, videos=None):
    """Rows whose right answer is the second of three options."""
    return [
        {
            "key": f"egoschema/{i}", "setting": setting, "video": f"v{i if videos is None else i % videos}",
            "question": "which?", "answer": "two", "options": ["one", "two", "three"],
            "prediction": None if reply is None else reply, "error": "no such video" if reply is None else None,
        }
        for i, reply in enumerate(replies)
    ]  # fmt: skip


def by_row(results):
    return {(r.number.table, r.number.label, r.number.measure, r.number.size): r for r in results.results}


def test_the_numbers_agree_with_one_another():
    """The main setting is also a row of each ablation, so a typo in one of the tables shows here."""
    seen = {}
    for number in paper_numbers():
        key = (number.run, number.setting.name, number.measure)
        assert seen.setdefault(key, number.value) == number.value, number
    assert len(seen) == 82 and sum(value is None for value in seen.values()) == 8
    by_name = {(n.run, n.setting.name, n.measure): n.value for n in paper_numbers()}
    assert by_name["7b/egoschema", MAIN, "accuracy"] == 47.2 and by_name["34b/egoschema", FAST_8, "accuracy"] is None
    for size in ("7b", "34b"):
        five = [by_name[f"{size}/vcgbench", MAIN, name] for name in ("CI", "DO", "CU", "TU", "CO")]
        assert by_name[f"{size}/vcgbench", MAIN, "average"] == pytest.approx(sum(five) / 5, abs=0.011)


def test_one_run_for_each_model_and_benchmark_with_all_its_settings():
    every = {experiment.name: experiment for experiment in choose_experiments()}
    assert len(every) == 16
    assert {name: len(one.settings) for name, one in every.items() if len(one.settings) > 1} == dict.fromkeys(
        ("7b/activitynet", "7b/egoschema", "34b/activitynet", "34b/egoschema"), 13
    )
    assert all(setting.frames == 50 for one in every.values() for setting in one.settings)
    assert [one.name for one in choose_experiments(["7b"], ["ablations"])] == ["7b/activitynet", "7b/egoschema"]
    (one,) = choose_experiments(["34b"], ["fast_grid", "egoschema"])
    assert len(one.numbers) == 7 and {number.table for number in one.numbers} == {"fast_grid"}
    assert {"main", "ablations", "msvd", "fast_grid", "slow_frames", "slow_pooling"} <= set(choices())
    assert "methods" not in choices()  # this ablation is not in the paper
    for wrong, text in (
        (["nextqa", "typo"], "--only typo: choose from main, ablations,"),
        (["fast_grid", "msvd"], "no such"),
    ):
        with pytest.raises(SfllavaError, match=text):
            choose_experiments(only=wrong)


def test_multiple_choice_is_by_the_published_rule_over_all_questions(tmp_path):
    # the published rule parses "because" as b; the strict rule does not. One question fails, one reply is unparsable
    replies = ["B) two", "because", "A) one", None, "?", *["(b)"] * 3, *["B"] * 12]
    write_run(tmp_path / "7b/egoschema", "egoschema", choice_rows(replies, videos=10))
    result = by_row(read_results(tmp_path, []))["main", "", "accuracy", "7b"]
    right = [True, True, False, False, False, *[False] * 3, *[True] * 12]
    wanted = stats.proportion(np.array(right, float), np.array([f"v{i % 10}" for i in range(20)]))
    assert (result.ours, result.low, result.high) == pytest.approx((70.0, 100 * wanted.low, 100 * wanted.high))
    assert (result.n, result.failed, result.unparsable) == (20, 1, 4)
    assert result.inside is (round(100 * wanted.low, 1) <= 47.2)
    assert result.difference == pytest.approx((70 - 47.2, 100 * wanted.low - 47.2, 100 * wanted.high - 47.2))
    assert result.notes == (
        "egoschema: 20 questions, but 500 in the paper",
        "1 of 20 questions failed and count as wrong, most often: no such video",
    )


def test_a_number_without_a_note_is_comparable(tmp_path):
    write_run(tmp_path / "7b/egoschema", "egoschema", choice_rows((["B"] * 47 + ["A"] * 53) * 5))
    result = by_row(read_results(tmp_path, []))["main", "", "accuracy", "7b"]
    assert result.notes == () and result.n == 500 and result.inside is True
    write_report(read_results(tmp_path, []), tmp_path)
    assert "<b>1</b>comparable (no note)" in (tmp_path / "reproduction.html").read_text()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"prompt": pack_prompt("vicuna", "choice").text}, "the prompt is this package's own wording"),
        ({"questions": 520}, "20 of 520 questions not asked yet, so not in the number"),
        ({"max_new_tokens": 16}, "answers of at most 16 tokens; the published code allows 128"),
        ({"read": "logits"}, "option letters read from the logits"),
        (
            {"model": {"shape": sizes_of("34b").shape.to_dict()}},
            "the language model is not the paper's 7b: it has 60 layers of width 7168",
        ),
        ({"model": {"shape": sizes_of("7b").shape.to_dict(), "dtype": "torch.bfloat16"}}, "weights in bfloat16"),
        (
            {"model": {"shape": sizes_of("7b").shape.to_dict(), "rope": {"type": "linear", "factor": 4.0}}},
            "RoPE is linear",
        ),
    ],
)
def test_differences_from_the_paper_are_notes(tmp_path, change, note):
    write_run(tmp_path / "7b/egoschema", "egoschema", choice_rows(["B", "A"] * 250), **change)
    notes = by_row(read_results(tmp_path, []))["main", "", "accuracy", "7b"].notes
    assert any(note in one for one in notes), notes


def test_a_setting_that_ran_out_of_memory_in_the_paper_is_measured(tmp_path):
    rows = [*choice_rows(["B"] * 10), *choice_rows(["B"] * 10, FAST_8)]
    write_run(tmp_path / "34b/egoschema", "egoschema", rows, size="34b")
    result = by_row(read_results(tmp_path, []))["fast_grid", "fast 8x8", "accuracy", "34b"]
    assert result.ours == 100 and result.difference is None and result.inside is None
    assert "the paper ran out of memory at this setting" in result.notes
    path = write_report(read_results(tmp_path, []), tmp_path)
    assert "out of memory" in path.read_text() and "out of memory" in path.with_suffix(".tex").read_text()


def test_a_judge_gives_the_five_scores_of_vcgbench(tmp_path, server):
    server()
    rows = [{**row, "setting": MAIN, "options": []} for row in vcgbench_rows(7, failed=("vcgbench/generic/2",))]
    run = write_run(tmp_path / "7b/vcgbench", "vcgbench", rows)
    before = by_row(read_results(tmp_path, []))
    assert {r.state for r in before.values()} == {"not judged"} and len(before) == 6
    assert all(r.notes[0] == "no judge was selected" for r in before.values())
    judge(run, quick(), progress=False)
    found = by_row(read_results(tmp_path, []))
    # 4.8 if the answer contains the reference, 0.3 if not, 0 without an answer; 2.55 for half a pair
    means = {"CI": 4.8 * 6 / 7, "DO": 4.8 * 6 / 7, "CU": 4.8 * 6 / 7, "TU": 0.3, "CO": 2.55}
    means["average"] = sum(means.values()) / 5
    for name, mean in means.items():
        result = found["main", "", name, "7b"]
        assert result.ours == pytest.approx(mean) and result.low <= mean <= result.high
        assert "the judge is judge-2026-01-01; the paper's, gpt-3.5-turbo-0125, is retired" in result.notes
        assert "the judge's prompt is this package's own wording" in result.notes
    assert found["main", "", "CI", "7b"].failed == 1 and found["main", "", "CI", "7b"].n == 7
    # the published evaluation truncates scores to whole numbers and leaves out failures
    assert any(note.startswith("4.00 with scores truncated") for note in found["main", "", "CI", "7b"].notes)


def test_two_judges_are_two_rows_and_one_can_be_chosen(tmp_path, server):
    server()
    row = {"key": "msvd/0", "setting": MAIN, "video": "v", "question": "what?", "answer": "cat", "prediction": "a cat"}
    run = write_run(tmp_path / "7b/msvd", "msvd", [row])
    for model in ("judge-one", "judge-two"):
        judge(run, quick(model), progress=False)
    assert [r.judge for r in read_results(tmp_path, []).results] == ["openai-judge-one", "openai-judge-two"] * 2
    chosen = read_results(tmp_path, [], judge="openai-judge-two").results
    assert [(r.judge, r.number.measure, r.ours) for r in chosen] == [
        ("openai-judge-two", "accuracy", 100.0), ("openai-judge-two", "score", 4.8),
    ]  # fmt: skip
    assert {r.state for r in read_results(tmp_path, [], judge="nobody").results} == {"not judged"}


def test_the_page_escapes_and_loads_nothing(tmp_path):
    rows = choice_rows(["B", None])
    rows[1]["error"] = "<script>alert(1)</script> & 'x'"
    write_run(tmp_path / "7b/egoschema", "egoschema", rows)
    results = read_results(tmp_path, [])
    path = write_report(results, tmp_path)
    page = path.read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#x27;x&#x27;" in page
    assert "src=" not in page and "http" not in page and "@import" not in page and "prefers-color-scheme: dark" in page
    assert ">47.2</td>" in page and "The paper reports no intervals" in page
    table = pd.read_csv(path.with_suffix(".csv"))
    assert list(table["paper"]) == [47.2] and list(table["table"]) == ["main"]
    assert list(table["ours"]) == [50.0] and len(to_frame(results.results)) == 1
    before = path.read_bytes()
    write_report(read_results(tmp_path, []), tmp_path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        f"reproduction.{end}" for end in ("csv", "html", "tex")
    ]


def test_a_model_is_freed_before_the_next_is_loaded(tmp_path, videos):
    root = tmp_path / "root"
    (root / "multiple_choice_qa/EgoSchema").mkdir(parents=True)
    (root / "multiple_choice_qa/EgoSchema.csv").write_text("video_name,question,answer,a0,a1\na,q,x,x,y\n")
    (root / "multiple_choice_qa/EgoSchema/video").symlink_to(videos)
    runs = plan_runs(choose_experiments(only=["main", "egoschema"]), root, tmp_path / "out")
    loaded = []

    @contextmanager
    def open_model(size):
        gc.collect()
        assert all(model() is None for model in loaded), "the model before is still in memory"
        model = load_model("tiny")
        loaded.append(weakref.ref(model))
        yield model

    problems, lines = Problems(), []
    answer_runs(runs, open_model, problems, lines.append, progress=False)
    assert len(loaded) == 2 and not problems.any, problems
    assert [line.split(",")[0] for line in lines] == ["7b/egoschema: 1 setting", "34b/egoschema: 1 setting"]
