"""All runs below a folder as one table: what `sfllava runs` shows, and what is damaged, foreign or outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from judged_runs import open_rows
from small_runs import SMALL, run
from written_runs import rows_of, write_run

from sfllava import cli
from sfllava.analysis import overview
from sfllava.analysis.loading import load_results
from sfllava.analysis.overview import filter_runs, load_runs, sort_runs
from sfllava.analysis.results import accuracy
from sfllava.types import SfllavaError


def about(**more):
    return {"model": "/models/llava-v1.6-vicuna-7b", "started": "2026-05-01T12:30:59+00:00", **more}


@pytest.fixture
def folder(tmp_path):
    """A complete run of two settings, an unfinished one of another model, and folders that are no runs."""
    write_run(tmp_path / "runs" / "7b" / "open", rows_of("a", 36) + rows_of("b", 20), **about())
    later = about(model="hub/models--org--llava-34b/snapshots/0a1b", started="2026-06-02T08:00:00+00:00")
    rows = rows_of("a", 10)[:30]
    write_run(tmp_path / "runs" / "34b", rows, identity={"questions": 40}, **later)
    for i, text in enumerate(("{", "[]", '{"identity": {"benchmark": 3}}', '{"name": "another tool"}', "\x00\xff")):
        (tmp_path / "runs" / f"odd{i}").mkdir()
        (tmp_path / "runs" / f"odd{i}" / "run.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "runs" / "lost").mkdir()
    (tmp_path / "runs" / "lost" / "predictions.jsonl").write_text("{}\n")
    (tmp_path / "runs" / "plots").mkdir()
    return tmp_path / "runs"


def test_each_run_and_setting_has_a_row(folder):
    table = load_runs(folder)
    good = table[table["state"] != "unreadable"].set_index(["run", "setting"])
    assert list(good.index) == [("34b", "a"), ("7b/open", "a"), ("7b/open", "b")]
    row = good.loc[("7b/open", "a")]
    assert (row["benchmark"], row["model"], row["tokens"], row["n"]) == ("open", "llava-v1.6-vicuna-7b", 3680, 40)
    assert (row["state"], row["date"], row["judge"], row["problem"]) == ("complete", "2026-05-01 12:30", "", "")
    assert row["accuracy"] == 90 and row["low"] < 90 < row["high"]
    part = good.loc[("34b", "a")]
    assert (part["model"], part["state"], part["done"], part["questions"]) == ("org/llava-34b", "unfinished", 30, 40)
    assert part["n"] == 30 and part["accuracy"] == pytest.approx(100 / 3)


def test_what_cannot_be_read_has_a_row_that_says_why(folder):
    table = load_runs(folder).set_index("run")
    odd = table[table["state"] == "unreadable"]
    assert list(odd.index) == ["lost", "odd0", "odd1", "odd2", "odd3", "odd4"]
    assert "not a run of sfllava" in odd.loc["lost", "problem"]
    assert all("run.json: not the run.json of a run" in odd.loc[f"odd{i}", "problem"] for i in range(5))
    assert not any("\n" in problem or str(folder) in problem for problem in odd["problem"])
    file = folder / "7b" / "open" / "predictions.jsonl"
    file.write_text(file.read_text() + "damage\n")
    rows = load_runs(folder).set_index("run").loc["7b/open"]
    assert len(rows) == 2 and set(rows["state"]) == {"unreadable"}
    assert rows["problem"].str.contains("predictions.jsonl, line 81: not a row").all()


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path):
    outside = write_run(tmp_path / "outside", rows_of("secret", 30))
    (folder / "linked").symlink_to(outside, target_is_directory=True)
    for name in ("run.json", "predictions.jsonl"):
        (folder / name.partition(".")[0]).mkdir()
        write_run(folder / name.partition(".")[0] / "in", rows_of("a", 3))
        (folder / name.partition(".")[0] / "in" / name).unlink()
        (folder / name.partition(".")[0] / "in" / name).symlink_to(outside / name)
    table = load_runs(folder)
    assert "secret" not in table.to_csv() and "linked" not in set(table["run"])
    for run_ in ("run/in", "predictions/in"):
        (problem,) = table[table["run"] == run_]["problem"]
        assert "a link out of the folder: not read" in problem
    # the folder itself may be a link
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert len(load_runs(tmp_path / "link")) == len(table)


def test_a_run_that_is_being_written_is_running(folder):
    (folder / "34b" / ".lock").touch()
    assert set(load_runs(folder / "34b")["state"]) == {"unfinished"}
    code = (
        "import sys; from pathlib import Path; from sfllava.runs.journal import hold\n"
        "with hold(Path(sys.argv[1]), 'busy'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder / "34b" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "held\n"
        assert load_runs(folder / "34b")[["run", "state", "done"]].values.tolist() == [["34b", "running", 30]]
        writer.stdin.close()


def test_a_run_of_the_package_is_read_from_its_scores_alone(models, benchmark, tmp_path, monkeypatch):
    run(models(), benchmark, tmp_path / "runs" / "one")
    wanted = accuracy(load_results(tmp_path / "runs" / "one")).iloc[0]
    monkeypatch.setattr(overview, "load_results", lambda *_: pytest.fail("rows were read"))
    (row,) = load_runs(tmp_path / "runs").to_dict("records")
    assert (row["run"], row["setting"], row["n"], row["state"], row["done"]) == ("one", SMALL.name, 12, "complete", 12)
    numbers = ["accuracy", "low", "high"]
    assert [row[name] for name in numbers] == pytest.approx([wanted[name] for name in numbers])


def test_judged_runs(tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    write_run(folder / "judged", open_rows(40), "msvd")
    write_run(folder / "open ended", [{**row, "type": "generic"} for row in open_rows(4)], "vcgbench")
    assert cli.main(["judge", str(folder / "judged"), "--judge", "match-contains"]) == 0
    table = load_runs(folder).set_index("run")
    row = table.loc["judged"]
    assert (row["judge"], row["accuracy"], row["n"], row["state"]) == ("match-contains", 60, 40, "complete")
    assert pd.isna(table.loc["open ended", "accuracy"]) and table.loc["open ended", "problem"] == ""
    # kept by `sfllava judge`; computed again when the file is out of date
    monkeypatch.setattr("sfllava.analysis.judge_summary.load_verdicts", lambda *_: pytest.fail("verdicts were read"))
    assert load_runs(folder / "judged")["accuracy"].tolist() == [60]
    monkeypatch.undo()
    file = folder / "judged" / "verdicts-match-contains.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-10]))
    (row,) = load_runs(folder / "judged").to_dict("records")
    assert (row["state"], row["n"], row["done"]) == ("judging", 30, 30)


def test_filters_and_sorting(folder):
    table = load_runs(folder)
    assert set(filter_runs(table, ["model=7B"])["run"]) == {"7b/open"}
    assert list(filter_runs(table, ["model=7b", "setting=b"])["setting"]) == ["b"]
    assert set(filter_runs(table, ["model=*34b", "state=unfinished"])["run"]) == {"34b"}
    assert filter_runs(table, ["model=34"]).shape[0] == 1 and filter_runs(table, ["run=odd[0]"]).empty
    found = sort_runs(table, "accuracy")
    assert found["accuracy"].dropna().tolist() == [90, 50, pytest.approx(100 / 3)] and pd.isna(
        found["accuracy"].iloc[-1]
    )
    assert (
        sort_runs(table, "date")["run"].tolist()[:2] == ["34b", "7b/open"]
        and sort_runs(table, "model")["run"].tolist()[0] == "7b/open"
    )
    with pytest.raises(SfllavaError, match=r"no column is called 'acuracy' \(did you mean 'accuracy'\?\)"):
        sort_runs(table, "acuracy")
    with pytest.raises(SfllavaError, match="needed COLUMN=TEXT, such as model=7b"):
        filter_runs(table, ["7b"])


@pytest.mark.parametrize("columns", [100, 120])
def test_the_table_fits_the_terminal(tmp_path, capsys, monkeypatch, columns):
    long = "50frms-slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
    write_run(tmp_path / "sweeps" / "2026-05 fast grid" / "nextqa", rows_of(long, 36) + rows_of("b", 20), **about())
    write_run(tmp_path / "sweeps" / "\x1b[31mred", rows_of("a", 5), **about(model="/models/llava-v1.6-34b"))
    monkeypatch.setitem(os.environ, "COLUMNS", str(columns))
    assert cli.main(["runs", str(tmp_path / "sweeps")]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= columns and "\x1b" not in said and r"\x1b[31mred" in said
    assert said.startswith("benchmark open\n") and "2 runs: 2 complete" in said
    # a run is named once
    assert len(re.findall("nextqa", said)) == 1


def test_csv_json_and_a_page(folder, tmp_path, capsys):
    files = ["--csv", str(tmp_path / "t.csv"), "--html", str(tmp_path / "t.html"), "--json"]
    assert cli.main(["runs", str(folder), "--sort", "accuracy", *files]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["accuracy"] for row in rows[:2]] == [90, 50] and rows[-1]["accuracy"] is None and len(rows) == 9
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 9 and table["accuracy"].tolist()[0] == 90 and set(overview.COLUMNS) == set(table)
    page = (tmp_path / "t.html").read_text()
    assert (
        page.count("<tr") == 1 + 3
        and page.count("<li>") == 6
        and "llava-v1.6-vicuna-7b" in page
        and "default-src 'none'" in page
    )
    assert "http:" not in page and "https:" not in page and "<script src" not in page


def test_a_folder_without_runs(tmp_path, capsys):
    assert cli.main(["runs", str(tmp_path)]) == 0 and capsys.readouterr().out == "no runs\n"
    assert cli.main(["runs", str(tmp_path), "--html", str(tmp_path / "x.html")]) == 0
    assert cli.main(["runs", str(tmp_path / "gone")]) == 1
    assert "needed a folder with runs, got no such folder" in capsys.readouterr().err
