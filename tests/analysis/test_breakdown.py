"""Breakdowns by groups, and the headline numbers of benchmarks."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from grouped_runs import BY_TYPE, FORMS, TASKS, add_benchmark, form_rows, tasks_run
from judged_runs import go
from written_runs import rows_of, write_run

from sfllava import cli
from sfllava.analysis.breakdown import breakdowns, headlines
from sfllava.analysis.compare import compare
from sfllava.analysis.differences import paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.reports.accessor import ResultsAccessor
from sfllava.reports.export import export_all, tables
from sfllava.runs.run_folder import RunError

A, B = {"plot": 15, "needle": 6, "count": 1}, {"plot": 21, "needle": 3, "count": 1}


@pytest.fixture
def tasks(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, BY_TYPE)
    return tasks_run(tmp_path / "run", ("a", A), ("b", B))


def test_the_headline_is_the_mean_of_groups_beside_the_accuracy(tasks):
    table = headlines(load_results(tasks)).set_index("name")
    a, b = table.loc["a"], table.loc["b"]
    assert a["value"] == pytest.approx(100 * (15 / 30 + 6 / 6 + 1 / 4) / 3) and a["headline"] == "M-Avg"
    assert a["accuracy"] == pytest.approx(100 * 22 / 40) and b["accuracy"] == pytest.approx(100 * 25 / 40)
    assert b["value"] == pytest.approx(100 * (21 / 30 + 3 / 6 + 1 / 4) / 3)
    assert (a["questions"], a["groups"], a["missing"], a["benchmark"]) == (40, "3 types", "", "tasks")
    for row in (a, b):
        assert 0 < row["low"] < row["value"] < row["high"] < 100
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
        # 24 videos of the small groups weigh twice as much as the 15 of the large one, so less is known
        assert row["high"] - row["low"] > row["accuracy_high"] - row["accuracy_low"]


def test_differences_and_findings_say_of_which_number_they_are(tasks, tmp_path, capsys):
    """By M-Avg the first setting is ahead, by all questions the second."""
    results = load_results(tasks)
    found = ResultsAccessor(results).compare(headline=True)
    assert found["headline"].tolist() == ["M-Avg"] and found["points"].tolist() == [pytest.approx(10)]
    assert ResultsAccessor(results).compare()["points"].tolist() == [pytest.approx(-7.5)]
    export_all(tasks, tmp_path / "out", ["budget"])
    for file, points in (("differences", -7.5), ("headline_differences", 10)):
        assert pd.read_csv(tmp_path / "out" / f"{file}.csv")["points"].tolist() == [pytest.approx(points)]
    words = (tmp_path / "out" / "findings.txt").read_text()
    assert words.startswith("By M-Avg: Of 1 paired") and "\nBy accuracy over all questions: Of 1 paired" in words
    assert cli.main(["compare", str(tasks)]) == 0 and "By M-Avg: Of 1 paired" in capsys.readouterr().out


def test_failed_and_unreadable_answers_stay_in_their_group(tasks):
    file = tasks / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[30] |= {"error": "no such video", "prediction": None}  # needle 0
    rows[31] |= {"prediction": "perhaps"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = headlines(load_results(tasks)).set_index("name").loc["a"]
    assert row["value"] == pytest.approx(100 * (15 / 30 + 4 / 6 + 1 / 4) / 3) and row["questions"] == 40


def test_a_group_that_was_not_asked_or_not_in_full_is_named(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, BY_TYPE)
    complete = {"plot": 539, "needle": 6, "count": 4, "order": 259, "ego": 352}
    run = tasks_run(tmp_path / "run", ("a", A), complete=complete)
    (row,) = headlines(load_results(run)).to_dict("records")
    assert row["groups"] == "3 types"
    assert row["missing"] == "no questions of: order, ego; not all of: plot 30 of 539"
    assert "\nno questions of: order, ego; not all of: plot 30 of 539\n" in str(compare([run]))
    # many are counted
    complete = {f"type {i}": 1 for i in range(9)} | TASKS
    run = tasks_run(tmp_path / "more", ("a", A), complete=complete)
    (row,) = headlines(load_results(run)).to_dict("records")
    assert row["missing"] == "no questions of: type 0, type 1, type 2, type 3 and 5 more"


def test_a_run_that_did_not_record_the_sizes_of_groups_names_none(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, BY_TYPE)
    for i, sizes in enumerate((None, [], "x", {"plot": "many"})):
        run = tasks_run(tmp_path / f"run{i}", ("a", A))
        about = json.loads((run / "run.json").read_text())
        about["sessions"][0]["headline_sizes"] = sizes
        (run / "run.json").write_text(json.dumps(about))
        assert headlines(load_results(run))["missing"].tolist() == [""]


def test_a_benchmark_without_a_headline_has_no_such_table(tmp_path):
    results = load_results(write_run(tmp_path / "run", rows_of("a", 30)))
    assert headlines(results).empty and "headlines" not in tables(results)
    assert "mean of the accuracies" not in str(compare([tmp_path / "run"]))


def test_breakdowns_by_every_group_have_counts_and_intervals(tasks):
    found = breakdowns(load_results(tasks))
    assert list(found) == ["type", "duration"]
    table = found["duration"].set_index(["name", "duration"])
    assert table.loc[("a", "short"), "questions"] == 20 and table.loc[("a", "short"), "videos"] == 20
    rights = sum(15 // 2 + 1 if kind == "plot" else (A[kind] + 1) // 2 for kind in A)
    assert table.loc[("a", "short"), "accuracy"] == pytest.approx(100 * rights / 20)
    assert (table["low"] < table["accuracy"]).all() and (table["accuracy"] < table["high"]).all()


def test_questions_without_a_group_are_in_no_row_of_its_table(tmp_path):
    rows = rows_of("a", 30)
    for i in (20, 21, 22, 39):  # the first that has groups is not the first row
        rows[i] |= {"groups": {"duration": "short" if i < 22 else "long"}}
    results = load_results(write_run(tmp_path / "run", rows))
    assert results["duration"].tolist().count("") == 36 and results["duration"][20] == "short"
    table = breakdowns(results)["duration"]
    assert dict(zip(table["duration"], table["questions"])) == {"short": 2, "long": 2}
    assert accuracy(results)["questions"].tolist() == [40]


def test_a_group_that_says_nothing_new_is_not_shown(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, FORMS)
    rows = form_rows("a", lambda form, dimension, video: video % 2)
    for row in rows:
        row["groups"]["domain"] = "all alike"
    results = load_results(write_run(tmp_path / "run", rows, "forms"))
    assert list(breakdowns(results)) == ["type", "form"]  # dimension repeats type
    assert set(results.attrs["groups"]) == {"form", "dimension", "domain"}


def test_several_tasks_in_one_run_are_each_read_by_their_own_rule(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, FORMS)
    rows = form_rows("a", lambda form, dimension, video: video % 4 if form == "choice" else form == "yes_no")
    results = load_results(write_run(tmp_path / "run", rows, "forms"))
    by_form = breakdowns(results)["form"].set_index("form")["accuracy"]
    assert by_form.to_dict() == {"choice": 75, "yes_no": 100, "caption_matching": 0}
    assert not results["unparsable"].any()
    (row,) = headlines(results).to_dict("records")
    assert row["value"] == pytest.approx(175 / 3) and row["groups"] == "6 groups by form and dimension"


def test_a_question_of_a_judge_s_task_is_not_left_out(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, FORMS)
    rows = form_rows("a", lambda *_: True)
    rows[7] |= {"task": "captioning"}
    with pytest.raises(RunError, match="question forms/choice/order/1: no offline score for a captioning question"):
        load_results(write_run(tmp_path / "run", rows, "forms"))


@pytest.mark.parametrize("name", ["accuracy", "type", "name", "../x", "a b", "panel"])
def test_a_group_with_the_name_of_a_column_or_a_path_is_refused(tmp_path, name):
    rows = rows_of("a", 30)
    rows[5] |= {"groups": {name: "x"}}
    with pytest.raises(RunError, match="question open/5: a group's name must be a word that is no other column, got"):
        load_results(write_run(tmp_path / "run", rows))


@pytest.mark.parametrize("groups", [["short"], {"duration": 3}])
def test_groups_of_another_kind_are_refused(tmp_path, groups):
    rows = rows_of("a", 30)
    rows[5] |= {"groups": groups}
    with pytest.raises(RunError, match="question open/5: groups must be texts by name, got"):
        load_results(write_run(tmp_path / "run", rows))


def test_headlines_are_compared_in_pairs(tasks):
    """b answers more questions, and a has the higher mean of types."""
    results = load_results(tasks)
    (plain,) = paired_differences(results).to_dict("records")
    (means,) = paired_differences(results, groups=("type",)).to_dict("records")
    assert plain["points"] == pytest.approx(-7.5)
    assert means["points"] == pytest.approx(100 * (-0.2 + 0.5 + 0) / 3)
    assert means["low"] < means["points"] < means["high"] and means["questions"] == 40


def test_compare_prints_both(tasks, capsys):
    assert cli.main(["compare", str(tasks)]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    start = lines.index("M-Avg, the mean of the accuracies of 3 types:")
    assert "M-Avg, %" in lines[start + 1] and "difference, points" in lines[start + 1]
    assert lines[start + 2].split()[:3] == ["a", "(baseline)", "58.3"]
    # against a: by the accuracy b is better, and by the headline it is not
    gaps = [re.search(r"[+-]\d+\.\d", line)[0] for line in lines if line.startswith("b ")]
    assert gaps == ["+7.5", "-10.0"]


def test_the_tables_are_exported(tasks, tmp_path):
    export_all(tasks, tmp_path / "out", ["types"])
    table = pd.read_csv(tmp_path / "out" / "headlines.csv")
    assert table["value"].round(1).tolist() == [58.3, 48.3] and table["groups"].tolist() == ["3 types"] * 2
    assert set(pd.read_csv(tmp_path / "out" / "by_duration.csv")["duration"]) == {"short", "long"}
    assert set(pd.read_csv(tmp_path / "out" / "types.csv")["type"]) == set(TASKS)
    assert {"by_duration.tex", "headlines.parquet"} <= {file.name for file in (tmp_path / "out").iterdir()}


CAPTIONS = Spec(
    name="captions", task="captioning", headline=Headline("mean over dimensions", ("dimension",)),
    rubrics={"": ("captioning",)},
)  # fmt: skip


def caption_rows():
    rows = []
    for i, said in enumerate(["dunking", "dribbling", "sleeping", "dunking"]):
        question = (
            "Which?\nInformation A: {'action': 'dribbling'}\nInformation B: {'action': 'dunking'}\nGenerated Caption:"
        )
        rows.append(
            {
                "key": f"captions/{i}", "setting": "s", "video": f"v{i // 2}", "task": "captioning", "type": "action",
                "question": question, "answer": "B. dunking", "prediction": f"A man is {said}.",
                "groups": {"dimension": ("action", "order")[i == 3]},
            }
        )  # fmt: skip
    return [*rows, {**rows[0], "key": "captions/4", "prediction": None, "error": "no such video"}]


def test_captions_are_right_where_the_judge_chose_the_right_option(server, monkeypatch, tmp_path):
    add_benchmark(monkeypatch, CAPTIONS)
    server()
    run = write_run(tmp_path / "run", caption_rows(), "captions")
    with pytest.raises(RunError, match="no offline score for a captioning benchmark"):
        load_results(run)
    assert go(run).complete
    results = load_results(run, "openai-judge-2026-01-01")
    assert results["correct"].tolist() == [True, False, False, True, False]
    assert results["failed"].tolist() == [False] * 4 + [True]
    (row,) = headlines(results).to_dict("records")
    assert row["value"] == pytest.approx(100 * (1 / 4 + 1) / 2) and row["accuracy"] == pytest.approx(40)


def test_scores_alone_are_no_accuracy(server, tmp_path):
    from judged_runs import vcgbench_rows
    from judged_runs import write_run as write_judged

    server()
    run = write_judged(tmp_path / "run", vcgbench_rows(2), "vcgbench")
    go(run)
    with pytest.raises(
        RunError, match=r"needed a rubric that says whether an answer is correct, got CI, .* of vcgbench"
    ):
        load_results(run, "openai-judge-2026-01-01")
