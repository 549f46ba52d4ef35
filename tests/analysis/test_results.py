from __future__ import annotations

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
from written_runs import rows_of, write_run

from sfllava import cli
from sfllava.analysis import stats
from sfllava.analysis.compare import compare
from sfllava.analysis.differences import describe_findings, paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy, costs, failures, pareto
from sfllava.analysis.tables import export
from sfllava.reports.export import export_all
from sfllava.runs.run_folder import RunError
from sfllava.types import SfllavaError


def test_what_failed_or_cannot_be_read_is_in_the_denominator(tmp_path):
    rows = rows_of("a", 30)
    rows[0] |= {"error": "v0: no such video", "prediction": None, "visual_tokens": None}
    rows[1] |= {"prediction": " "}
    rows[2] |= {"prediction": "?!"}
    row = accuracy(load_results(write_run(tmp_path / "run", rows))).to_dict("records")[0]
    assert row["accuracy"] == pytest.approx(100 * 27 / 40) and row["low"] < row["accuracy"] < row["high"]
    counts = {
        k: row[k] for k in ("name", "tokens", "questions", "videos", "failed", "empty", "unparsable", "not_asked")
    }
    assert counts == {
        "name": "a", "tokens": 8, "questions": 40, "videos": 20, "failed": 1, "empty": 1, "unparsable": 1, "not_asked": 0,
    }  # fmt: skip
    assert failures(load_results(tmp_path / "run")).to_dict("records") == [
        {"name": "a", "reason": "v0: no such video", "questions": 1}
    ]


def test_a_benchmark_that_was_not_begun_is_named_and_counted_by_itself(tmp_path):
    """What `evaluate A,B` leaves when it is killed in A."""
    one = write_run(tmp_path / "one", rows_of("a", 30) + rows_of("b", 30))
    about = {"frames": 50, "aggregation": "x", "budget": 8}
    settings = [{"name": name, **about} for name in "ab"]
    two = write_run(tmp_path / "two", [], "egoschema", settings, identity={"questions": 500})
    table = accuracy(load_results([one, two]))
    assert table[["benchmark", "name", "questions", "not_asked"]].values.tolist() == [
        ["open", "a", 40, 0], ["open", "b", 40, 0], ["egoschema", "a", 0, 500], ["egoschema", "b", 0, 500],
    ]  # fmt: skip
    text = describe_findings(load_results([one, two]))
    assert "open: Of 1 paired" in text and "egoschema: There is no answer yet." in text
    assert "1,000 questions have not been asked yet" in text.split("egoschema: ")[1]
    # what is filtered away was asked
    results = load_results(one)
    assert accuracy(results[results["video"] == "v0"])["not_asked"].tolist() == [0, 0]


def test_a_row_with_neither_prediction_nor_error_has_failed(tmp_path):
    rows = rows_of("a", 40)
    rows[0] |= {"prediction": None}
    results = load_results(write_run(tmp_path / "run", rows))
    assert (results["correct"].sum(), results["failed"].sum()) == (39, 1)
    assert failures(results)["reason"].tolist() == ["no prediction"]


def test_questions_not_asked_yet_are_counted(tmp_path):
    run = write_run(tmp_path / "run", rows_of("a", 30), identity={"questions": 50})
    assert accuracy(load_results(run))["not_asked"].tolist() == [10]


def test_choices_are_read_strictly(tmp_path):
    row = {"setting": "a", "video": "v", "answer": "x", "options": ["y", "x"]}
    said = ["B) x", "because", "A", "b"]
    rows = [{**row, "key": f"choice/{i}", "prediction": text} for i, text in enumerate(said)]
    results = load_results(write_run(tmp_path / "run", rows, "choice"))
    assert results["correct"].tolist() == [True, False, False, True]
    assert results["unparsable"].tolist() == [False, True, False, False]


def test_types_have_names(tmp_path):
    row = {"setting": "a", "video": "v", "answer": "x", "options": ["y", "x"], "prediction": "B"}
    rows = [{**row, "key": f"nextqa/{i}", "type": kind} for i, kind in enumerate(["CW", "TN", "CW", "??"])]
    table = accuracy(load_results(write_run(tmp_path / "run", rows, "nextqa")), ("name", "type"))
    assert dict(zip(table["type"], table["questions"])) == {"why": 2, "before and after": 1, "??": 1}


def test_differences_are_paired_and_corrected(tmp_path):
    rows = rows_of("a", 36) + rows_of("b", 20) + rows_of("c", 36)
    results = load_results(write_run(tmp_path / "run", rows))
    table = paired_differences(results).set_index(["setting", "other"])
    gap = table.loc["a", "b"]
    assert gap["points"] == pytest.approx(40) and 0 < gap["low"] < 40 < gap["high"] and gap["significant"]
    assert gap["p_holm"] > gap["p"] and gap["questions"] == 40 and gap["videos"] == 20
    assert table.loc["a", "c"]["points"] == 0 and not table.loc["a", "c"]["significant"]
    assert len(paired_differences(results, "b")) == 2
    words = describe_findings(results)
    assert "Of 3 paired differences on 40 questions about 20 videos, 2 are significant" in words
    assert "a is better than b by 40.0 points" in words and "must not be read as findings" in words
    with pytest.raises(RunError, match="no setting is called 'd'; choose from a, b, c"):
        paired_differences(results, "d")


def test_settings_of_different_questions_are_not_compared(tmp_path):
    run = write_run(tmp_path / "run", rows_of("a", 30) + rows_of("b", 20)[:-1])
    with pytest.raises(RunError, match="a and b were not asked the same questions: 40 and 39 rows, of which 39 agree"):
        paired_differences(load_results(run))


def test_runs_are_compared_by_what_was_asked(tmp_path, capsys):
    one = write_run(tmp_path / "one", rows_of("a", 30))
    two = write_run(tmp_path / "two", rows_of("a", 10))
    assert cli.main(["compare", str(one), str(two)]) == 0
    said = capsys.readouterr().out
    assert "one: a is better than two: a by 50.0 points" in said
    assert re.search(r"one: a \(baseline\) +8 +75\.0 \[", said) and re.search(r"two: a +8 +25\.0 .* -50\.0 \[", said)
    other = write_run(tmp_path / "other", [row | {"question": "else?"} for row in rows_of("a", 20)])
    with pytest.raises(
        RunError,
        match=r"one and other were not asked the same questions: open \(40 questions, .* against open \(40 questions, ",
    ):
        compare([one, other])
    assert cli.main(["compare", str(one), str(other)]) == 1 and "not asked the same" in capsys.readouterr().err
    with pytest.raises(RunError, match="a run was given twice"):
        load_results([one, tmp_path / "one"])


def test_the_same_setting_on_two_benchmarks_is_one_name(tmp_path):
    one = write_run(tmp_path / "one", rows_of("a", 30))
    choice = {"setting": "a", "video": "v0", "answer": "x", "options": ["y", "x"], "prediction": "B", "key": "choice/0"}
    two = write_run(tmp_path / "two", [choice], "choice")
    results = load_results([one, two])
    assert list(results["name"].cat.categories) == ["a"]
    # one name, and never one accuracy over both
    table = accuracy(results)
    assert table[["benchmark", "name", "questions"]].values.tolist() == [["open", "a", 40], ["choice", "a", 1]]


def test_pareto_front():
    table = pd.DataFrame({"tokens": [10, 20, 20, 40, 50], "accuracy": [50, 60, 55, 60, 70]})
    assert pareto(table).tolist() == [True, True, False, False, True]
    unknown = pd.DataFrame({"tokens": [10, None, 5, 20], "accuracy": [50, 90, None, 60]})
    assert pareto(unknown).tolist() == [True, False, False, True]


def test_a_second_row_of_a_question_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "run", rows_of("a", 30) * 2)
    assert cli.main(["compare", str(run)]) == 1
    assert "predictions.jsonl, line 41: a second row for question open/0 at setting a" in capsys.readouterr().err


def test_one_question_each_way_in_one_video_is_no_finding(tmp_path):
    """A win and a loss about one video out of 245 cancel out: no difference, and not a certain one."""
    rows = rows_of("a", 490, videos=245) + rows_of("b", 490, videos=245)
    rows[0] |= {"prediction": "no"}
    rows[491] |= {"prediction": "no"}
    (row,) = paired_differences(load_results(write_run(tmp_path / "run", rows))).to_dict("records")
    assert (row["points"], row["p"], row["significant"]) == (0, 1, False)
    assert row["low"] < -1 < 1 < row["high"] and row["min_detectable_effect"] > 1


def test_three_videos_rank_nothing(tmp_path, capsys):
    rows = rows_of("a", 6, videos=3) + rows_of("b", 0, videos=3)
    assert cli.main(["compare", str(write_run(tmp_path / "run", rows))]) == 0
    said = capsys.readouterr().out
    assert "6 questions about 3 videos: too few videos to tell settings apart" in said
    assert "Nothing is ranked" in said and "better" not in said
    (row,) = paired_differences(load_results(tmp_path / "run")).to_dict("records")
    assert (row["points"], row["low"], row["high"], row["p"], row["significant"]) == (100, -100, 100, 0.25, False)


def test_verdicts_on_other_predictions_do_not_count(tmp_path, capsys):
    run = write_run(tmp_path / "run", rows_of("a", 30), "msvd")
    assert cli.main(["judge", str(run), "--judge", "match-exact"]) == 0
    assert load_results(run, "match-exact")["correct"].sum() == 30
    file = run / "predictions.jsonl"
    file.write_text(file.read_text().replace('"prediction": "Yes."', '"prediction": "I do not know"'))
    capsys.readouterr()
    for command in (["compare", str(run)], ["figures", str(run), "--out", str(tmp_path / "out")]):
        assert cli.main([*command, "--judge", "match-exact"]) == 1
        assert "30 verdicts are on other predictions than those in the run now" in capsys.readouterr().err
    assert cli.main(["judge", str(run), "--judge", "match-exact"]) == 0
    assert load_results(run, "match-exact")["correct"].sum() == 0


def test_compare_works_out_its_differences_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        stats, "differences", lambda *a, real=stats.differences, **k: (calls.append(1), real(*a, **k))[1]
    )
    compare([write_run(tmp_path / "run", rows_of("a", 30) + rows_of("b", 10))])
    assert len(calls) == 1


def test_costs_by_arithmetic(tmp_path):
    """7B at 3,680 tokens: about 2 x 6.5e9 operations a token and 4e12 of attention, half a megabyte of KV each."""
    table = costs(load_results(write_run(tmp_path / "run", rows_of("a", 3)))).iloc[0]
    assert table["prefill_flops"] == pytest.approx(2 * 6.476e9 * 3680 + 3.55e12, rel=0.01)
    assert table["kv_bytes"] == 3680 * 2 * 32 * 4096 * 2


def test_export(tmp_path):
    table = pd.DataFrame({"name": ["slow_1 & 50 %", "b"], "accuracy": [51.25, None]})
    assert export(table, tmp_path / "t.csv").read_text().splitlines()[1] == "slow_1 & 50 %,51.25"
    assert pd.read_parquet(export(table, tmp_path / "t.parquet"))["accuracy"][0] == 51.25
    text = export(table, tmp_path / "sub" / "t.tex").read_text()
    assert r"\toprule" in text and r"\bottomrule" in text and r"slow\_1 \& 50 \% & 51.2" in text and "{lr}" in text
    with pytest.raises(SfllavaError, match=r"needed a file name that ends in \.csv"):
        export(table, tmp_path / "t.xlsx")


def test_latex_has_words_and_units(tmp_path):
    rows = rows_of("a", 36, visual_tokens=448) + rows_of("b_1", 20, visual_tokens=448)
    export_all(write_run(tmp_path / "run", rows), tmp_path / "out", ["budget"])
    accuracies, differences, costs_ = (
        (tmp_path / "out" / f"{name}.tex").read_text() for name in ("accuracy", "differences", "costs")
    )
    assert "not asked" in accuracies and "not\\_asked" not in accuracies
    assert r"b\_1 & 448 & 40 & 20 & 0 &" in accuracies and "448.0" not in accuracies
    assert "corrected p" in differences and "& 0.008 & 0.008 &" in differences
    assert re.search(r"& \d\d\.\d TFLOP & 1\.8 GiB", costs_), costs_
    assert "e+" not in accuracies + differences + costs_
    assert (tmp_path / "out" / "accuracy.csv").read_text().splitlines()[1].startswith("open,a,448,40,20,")


def test_a_benchmark_for_a_judge_has_no_accuracy(tmp_path):
    with pytest.raises(RunError, match="its predictions need a judge"):
        load_results(write_run(tmp_path / "run", [], "vcgbench"))


@pytest.mark.slow
def test_a_large_run_is_streamed(tmp_path):
    """Of 200,000 rows little more is kept than their numbers: a million fit into 1 GB."""
    row = {"type": "TN", "question": "what does the man do after?", "options": ["a", "b", "c", "d", "e"], "answer": "b"}
    folder = write_run(
        tmp_path / "run", [], "nextqa", settings=[{"name": "s", "frames": 50, "aggregation": "x", "budget": 8}]
    )
    with (folder / "predictions.jsonl").open("w") as file:
        for i in range(200_000):
            line = {"key": f"nextqa/{i}", "setting": "s", "video": f"v{i // 9}", "prediction": "B", "visual_tokens": 8}
            file.write(json.dumps(row | line | {"error": None, "seconds": {"answer": 0.1}, "pad": "x" * 300}) + "\n")
    code = (
        "import sys, resource; from sfllava.analysis.loading import load_results\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert load_results(sys.argv[1])['correct'].all()\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 120, done.stdout  # MB; the file has 90


def test_a_text_that_a_spreadsheet_would_run_is_no_formula(tmp_path):
    cells = ['=HYPERLINK("http://x","y")', "+1", "-a", "@SUM(A1)", "\tx", "\rx", "a\rb"]
    table = pd.DataFrame({"=name": cells, "points": [-1.5] * 7})
    lines = pd.read_csv(export(table, tmp_path / "t.csv"), dtype=str)
    assert list(lines.columns) == ["'=name", "points"] and set(lines["points"]) == {"-1.5"}
    assert list(lines["'=name"]) == [*(f"'{cell}" for cell in cells[:-2]), "'\nx", "a\nb"]


def test_a_reason_that_names_a_file_of_odd_bytes_is_exported(tmp_path):
    """As a path that is no UTF-8 stands in a row: each table and figure shows the byte's number."""
    rows = rows_of("a", 30)
    rows[3] |= {"prediction": None, "error": "caf\udce9/v.mp4: the file is empty (0 bytes)"}
    export_all(write_run(tmp_path / "run", rows), tmp_path / "out", ["budget"])
    for kind in ("csv", "tex"):
        assert "udce9/v.mp4" in (tmp_path / "out" / f"failures.{kind}").read_text(encoding="utf-8")
    assert pd.read_parquet(tmp_path / "out" / "failures.parquet")["reason"][0].startswith("caf\\udce9/v.mp4")


def test_a_run_folder_of_odd_bytes_has_a_name(tmp_path):
    runs = [write_run(tmp_path / name, rows_of("a", 30)) for name in ("caf\udce9", "other")]
    export_all(runs, tmp_path / "out", ["budget"])
    assert (
        "caf\\udce9: a"
        in (tmp_path / "out" / "findings.txt").read_text() + (tmp_path / "out" / "accuracy.csv").read_text()
    )


def test_questions_not_asked_are_counted_for_each_setting(tmp_path):
    rows = rows_of("a", 30) + rows_of("b", 30)[:25]
    table = accuracy(load_results(write_run(tmp_path / "run", rows, identity={"questions": 41})))
    assert dict(zip(table["name"], table["not_asked"])) == {"a": 1, "b": 16}
    # more rows than the run says it has are no negative count
    table = accuracy(load_results(write_run(tmp_path / "more", rows_of("a", 30), identity={"questions": 39})))
    assert table["not_asked"].tolist() == [0]
    # other groups than settings have no such column
    assert "not_asked" not in accuracy(load_results(tmp_path / "more"), ("type",))


def test_equal_settings_share_the_pareto_front():
    table = pd.DataFrame({"tokens": [10, 10, 9, 11], "accuracy": [50.0, 50.0, 40.0, 50.0], "seconds": [4, 3, 2, 1]})
    assert pareto(table).tolist() == [True, True, True, False]
    assert pareto(table, "seconds").tolist() == [False, False, False, True]
