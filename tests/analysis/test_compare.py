"""What `sfllava compare` prints and writes."""

from __future__ import annotations

import json
import os

import pandas as pd
import pytest
from judged_runs import open_rows
from written_runs import rows_of, write_run

from sfllava import cli
from sfllava.analysis.compare import compare
from sfllava.analysis.graded import graded_rows
from sfllava.runs.run_folder import RunError

LONG = "50frms-slowfast-slow_10frms_spatial_1d_max_pool-fast_{}x{}"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", rows_of("a", 36) + rows_of("b", 20) + rows_of("c", 30))


def test_all_are_compared_with_the_first_unless_another_is_the_baseline(run, capsys):
    assert cli.main(["compare", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "open: 40 questions about 20 videos, by the strict offline rules"
    assert lines[1].split("  ")[0] == "setting" and lines[2].startswith("a (baseline) ")
    assert " -40.0 [" in lines[3] and "] *" in lines[3] and " -15.0 [" in lines[4]
    assert "corrected for 2 comparisons (Holm)" in " ".join(lines)
    assert cli.main(["compare", str(run), "--baseline", "b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("b (baseline) ") and " +40.0 [" in lines[2] and " +25.0 [" in lines[4]


def test_all_pairs(run, capsys):
    assert cli.main(["compare", str(run), "--all-pairs"]) == 0
    said = capsys.readouterr().out
    pairs = said.split("all pairs:\n")[1].split("\n\n")[0].splitlines()
    assert pairs[0].split()[:2] == ["setting", "other"] and [line.split()[:2] for line in pairs[1:]] == [
        ["a", "b"], ["a", "c"], ["b", "c"],
    ]  # fmt: skip
    assert "(baseline)" not in said
    with pytest.raises(RunError, match="needed a baseline or all pairs, got both"):
        compare(run, "a", all_pairs=True)


def test_an_unknown_baseline_gets_a_suggestion(tmp_path, capsys):
    run = write_run(tmp_path / "run", rows_of("fast 4x4", 36) + rows_of("fast 8x8", 20))
    assert cli.main(["compare", str(run), "--baseline", "fast 4x5"]) == 1
    assert "no setting is called 'fast 4x5' (did you mean 'fast 4x4'?)" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_it_fits_the_terminal_and_names_stay_whole(tmp_path, capsys, monkeypatch, columns):
    rows = [row for n in range(1, 8) for row in rows_of(LONG.format(n, n), 40 - 4 * n)]
    rows[3] |= {"prediction": None, "error": "no such video"}
    run = write_run(tmp_path / "run", rows)
    monkeypatch.setitem(os.environ, "COLUMNS", str(columns))
    for more in ([], ["--all-pairs"]):
        assert cli.main(["compare", str(run), *more]) == 0
        table, *rest = capsys.readouterr().out.split("\n\n")
        findings = [line for line in rest[-1].splitlines() if LONG[:20] not in line]  # a sentence may need two names
        assert max(map(len, [*table.splitlines(), *findings])) <= min(columns, 120)
        names = "".join(line[: table.splitlines()[1].index("tokens")].strip() for line in table.splitlines())
        start = LONG.partition("fast_")[0]
        if "…" in names:  # what all names begin with is written once
            assert table.endswith(f"\n… is {start}") and all(f"…fast_{n}x{n}" in names for n in range(1, 8))
        else:
            assert all(LONG.format(n, n) in names for n in range(1, 8))


def test_json_markdown_and_csv_have_the_same_numbers(run, tmp_path, capsys):
    assert cli.main(["compare", str(run), "--json", "--csv", str(tmp_path / "t.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["baseline"] == "a" and [s["accuracy"] for s in found["settings"]] == [90, 50, 75]
    gap = found["differences"][0]
    assert gap["setting"] == "b" and gap["points"] == -40 and gap["significant"] is True
    table = pd.read_csv(tmp_path / "t.csv").set_index("name")
    assert table.loc["b", "points"] == -40 and table.loc["b", "points_low"] == pytest.approx(gap["low"])
    assert pd.isna(table.loc["a", "points"]) and table["accuracy"].tolist() == [90, 50, 75]
    assert cli.main(["compare", str(run), "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[2] == "| setting | tokens | accuracy, % | difference, points | p |"
        and lines[3] == "|---|---:|---|---|---|"
    )
    assert lines[4].startswith("| a (baseline) | 8 | 90.0 [") and lines[5].startswith("| b | 8 | 50.0 [")
    table = compare(run, all_pairs=True).table()
    assert table[["setting", "other", "accuracy", "other_accuracy", "points"]].values.tolist()[0] == [
        "a",
        "b",
        90,
        50,
        40,
    ]


def test_every_answer_with_right_or_wrong(tmp_path):
    rows = rows_of("a", 30)
    rows[0] |= {"prediction": None, "error": "no such video"}
    rows[1] |= {"prediction": " "}
    rows[2] |= {"prediction": "=1+1"}
    run = write_run(tmp_path / "run", rows + rows_of("b", 40))
    file = tmp_path / "rows.csv"
    assert cli.main(["compare", str(run), "--rows", str(file)]) == 0
    table = pd.read_csv(file, keep_default_na=False)
    assert table["outcome"].tolist()[:4] == ["failed", "empty", "wrong", "right"]
    assert table["prediction"][2] == "'=1+1" and table["error"][0] == "no such video"
    wrong = table[~table["correct"]]
    assert len(table) == 80 and len(wrong) == 10 + 3 and set(wrong["setting"]) == {"a"}
    assert {"run", "video", "question", "options", "answer"} <= set(table)


def test_every_answer_by_a_judge(tmp_path):
    run = write_run(tmp_path / "run", open_rows(12), "msvd")
    assert cli.main(["judge", str(run), "--judge", "match-contains"]) == 0
    table = graded_rows(run, "match-contains")
    contained = [answer.lower() in said.lower() for answer, said in zip(table["answer"], table["prediction"])]
    assert table["correct"].tolist() == contained and 0 < sum(contained) < 12
    options = {
        "setting": "a",
        "video": "v",
        "answer": "x",
        "options": ["y", "x"],
        "key": "choice/0",
        "prediction": "Hm?",
    }
    (row,) = graded_rows(write_run(tmp_path / "choice", [options], "choice")).to_dict("records")
    assert (row["options"], row["outcome"]) == ("(A) y; (B) x", "unparsable")
