"""`sfllava reproduce` as a user runs it: with the tiny model, on real clips and on rendered ones."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import CLIPS
from devices import GPU
from published_layout import write_csv_root
from shell import sfllava
from small_runs import slowly

from sfllava.cli import main
from sfllava.runs.run_folder import read_rows

MAIN = "50frms-slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
SLOW_12 = "50frms-slowfast-slow_12frms_spatial_1d_max_pool-fast_0x0"


@pytest.fixture
def root(videos, tmp_path):
    """A root with two questions of MSVD and two of EgoSchema; the paper's other benchmarks are missing."""
    folder = tmp_path / "root"
    for place, file, text in (
        ("open_ended_qa", "MSVD_QA.csv", "video_name,question,answer,question_id\na,what?,x,1\nb,who?,y,2\n"),
        ("multiple_choice_qa", "EgoSchema.csv", "video_name,question,answer,a0,a1\na,which?,x,x,y\nb,which?,y,x,y\n"),
    ):
        (folder / place).mkdir(parents=True)
        (folder / place / file).write_text(text)
    for place in ("video_qa/MSVD_Zero_Shot_QA/videos", "multiple_choice_qa/EgoSchema/video"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(videos)
    return folder


def reproduce(root, out, *more, **environment):
    return sfllava("reproduce", "--root", root, "--out", out, "--model", "7b=tiny", *more, **environment)


def table(out):
    return pd.read_csv(out / "reproduction.csv", keep_default_na=False)


def test_real_clips_from_two_benchmarks_to_the_report_after_a_kill(shared, tmp_path):
    write_csv_root(tmp_path / "root", shared / "qa", [shared / "clips" / f"{name}.mp4" for name in CLIPS], count=3)
    out = tmp_path / "out"
    arguments = ["--only", "main", "nextqa", "msvd", "--judge", "match-contains"]
    words = ["reproduce", "--root", tmp_path / "root", "--out", out, "--model", "7b=tiny", *arguments]
    command = [sys.executable, "-m", "sfllava.cli", *map(str, words)]
    process = subprocess.Popen(command, env=slowly(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = out / "7b/msvd/predictions.jsonl"
    deadline = time.monotonic() + 300
    while not (first.exists() and first.read_bytes()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (out / "reproduction.html").exists()
    before = list(read_rows(out / "7b/msvd"))
    assert before

    done = reproduce(tmp_path / "root", out, *arguments)
    assert done.returncode == 0, done.stderr
    assert list(read_rows(out / "7b/msvd"))[: len(before)] == before
    for name in ("msvd", "nextqa"):
        rows = list(read_rows(out / "7b" / name))
        assert sorted(row["key"] for row in rows) == [f"{name}/{i}" for i in range(3)]
        assert all(row["error"] is None and row["setting"] == MAIN for row in rows)
        assert json.loads((out / "7b" / name / "run.json").read_text())["identity"]["max_new_tokens"] == 128
    report = table(out)
    assert list(report["benchmark"] + " " + report["measure"]) == ["msvd accuracy", "msvd score", "nextqa accuracy"]
    assert list(report["paper"]) == [79.1, 4.1, 64.2] and list(report["state"]) == [
        "measured",
        "not judged",
        "measured",
    ]
    for row in report[report["state"] == "measured"].to_dict("records"):
        ours, low, high = (float(row[name]) for name in ("ours", "low", "high"))
        assert 0 <= low <= ours <= high <= 100 and row["n"] == 3
        assert float(row["difference"]) == pytest.approx(ours - row["paper"], abs=1e-3)
        assert row["paper_in_interval"] == ("yes" if round(low, 1) <= row["paper"] <= round(high, 1) else "no")
        assert "the language model is not the paper's 7b" in row["note"] and "package's own wording" in row["note"]
    assert "gpt-3.5-turbo-0125, is retired" in report["note"][0] and "this judge gives no score" in report["note"][1]
    assert "Of 3 numbers of the paper, 2 are measured, 1 not judged and 0 not run." in done.stdout
    page = (out / "reproduction.html").read_text()
    assert ">79.1</td>" in page and ">64.2</td>" in page

    again = reproduce(tmp_path / "root", out, *arguments)
    assert again.returncode == 0 and len(list(read_rows(out / "7b/msvd"))) == 3
    assert (out / "reproduction.html").read_text() == page


def test_an_interrupted_call_reports_the_existing_results(root, tmp_path):
    out = tmp_path / "out"
    words = ["reproduce", "--root", root, "--out", out, "--model", "7b=tiny", "--only", "main", "msvd", "egoschema"]
    command = [sys.executable, "-m", "sfllava.cli", *map(str, words)]
    process = subprocess.Popen(command, env=slowly(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = out / "7b/msvd/predictions.jsonl"
    while not (first.exists() and first.read_bytes()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    text, errors = process.communicate()
    assert process.returncode == 130 and "stopped; run the same command again to continue" in errors
    assert text.endswith("reproduction.html\n")
    found = table(out).set_index(["benchmark", "measure"])
    assert found.loc[("egoschema", "accuracy")]["state"] == "not run"
    assert "not started yet" in found.loc[("egoschema", "accuracy")]["note"]
    assert reproduce(root, out, *words[7:]).returncode == 0
    assert table(out).set_index(["benchmark", "measure"]).loc[("egoschema", "accuracy")]["state"] == "measured"


def test_what_is_missing_is_skipped_and_counted(root, tmp_path):
    out = tmp_path / "out"
    done = reproduce(root, out, "--only", "main")
    assert done.returncode == 0, done.stderr
    skipped = [line for line in done.stdout.splitlines() if line.startswith("skipped ")]
    assert [line.split(":")[0] for line in skipped] == [
        f"skipped 7b/{name}" for name in ("msrvtt", "tgif", "activitynet", "nextqa", "intentqa", "vcgbench")
    ]
    assert "no question file under" in skipped[0]
    report = table(out)
    states = dict(zip(report["benchmark"] + " " + report["measure"], report["state"]))
    assert len(states) == 17 and states["egoschema accuracy"] == "measured" and states["msvd score"] == "not judged"
    assert sum(state == "not run" for state in states.values()) == 14
    assert "1 are measured, 2 not judged and 14 not run" in done.stdout
    page = (out / "reproduction.html").read_text()
    assert "<b>14</b>not run" in page and "no judge was selected" in page and "vcgbench: no question file" in page


def test_tables_share_a_run_and_a_later_call_adds_to_it(root, tmp_path):
    out = tmp_path / "out"
    assert reproduce(root, out, "--only", "slow_frames", "egoschema").returncode == 0
    rows = list(read_rows(out / "7b/egoschema"))
    assert {row["setting"] for row in rows} == {MAIN, SLOW_12} and len(rows) == 4
    done = reproduce(root, out, "--only", "main")
    assert done.returncode == 0 and list(read_rows(out / "7b/egoschema")) == rows
    found = table(out)
    assert {*found[found["benchmark"] == "egoschema"]["table"]} == {"main", "slow_frames"}
    assert found[found["label"] == "slow 12"]["state"].tolist() == ["measured"]


def test_a_setting_that_does_not_fit_and_a_failed_run_do_not_affect_the_others(root, tmp_path):
    out = tmp_path / "out"
    (out / "34b").mkdir(parents=True)
    (out / "34b/egoschema").write_text("a file where the run folder should be")
    models = ["--model", "7b=tiny", "34b=tiny"]
    done = reproduce(root, out, *models, "--only", "slow_frames", "egoschema", "--context", "1000")
    assert done.returncode == 1
    assert "FAILED 34b/egoschema:" in done.stdout and "cannot be used as a run folder" in done.stdout
    assert f"left out 7b/egoschema, {MAIN}: 1120 visual and" in done.stdout
    assert {row["setting"] for row in read_rows(out / "7b/egoschema")} == {SLOW_12}
    found = table(out).set_index(["model", "label"])
    assert found["state"].to_dict() == {
        ("7b", "slow 12"): "measured",
        ("7b", "slow 10 + fast 50"): "not run",
        ("34b", "slow 12"): "not run",
        ("34b", "slow 10 + fast 50"): "not run",
    }
    assert "do not fit the context of 1000" in found.loc[("7b", "slow 10 + fast 50")]["note"]
    assert "cannot be used as a run folder" in found.loc[("34b", "slow 12")]["note"]


def test_a_judge_on_a_server(root, server, tmp_path):
    server()
    arguments = ["--only", "main", "--judge", "openai", "--judge-model", "judge-2026-01-01"]
    refused = reproduce(root, tmp_path / "out", *arguments)
    assert refused.returncode == 1 and "nothing started: --judge openai needs --yes" in refused.stderr
    assert not (tmp_path / "out").exists()
    done = reproduce(root, tmp_path / "out", *arguments, "--price", 1, 2, "--limit-cost", 1)
    assert done.returncode == 0, done.stderr
    found = table(tmp_path / "out").query("benchmark == 'msvd'")
    assert list(found["judge"]) == ["openai-judge-2026-01-01"] * 2 and list(found["state"]) == ["measured"] * 2
    assert all("the judge is judge-2026-01-01; the paper's, gpt-3.5-turbo-0125, is retired" in n for n in found["note"])


def test_published_wordings_are_used_and_recorded(root, tmp_path):
    pack = tmp_path / "pack"
    for file, text in (
        ("multiple_choice_allvideo_v4/choice.txt", "<video>\n{question}\n{options}\nBest option:("),
        ("image_seq_v3/open.txt", "<video>\n{question}\nshortly:"),
    ):
        (pack / file).parent.mkdir(parents=True)
        (pack / file).write_text(text)
    arguments = ["--only", "main", "egoschema", "msvd", "--prompts", pack]
    assert reproduce(root, tmp_path / "out", *arguments).returncode == 0
    identity = json.loads((tmp_path / "out/7b/egoschema/run.json").read_text())["identity"]
    assert identity["prompt"].endswith("Best option:(")
    assert not any("own wording" in note for note in table(tmp_path / "out")["note"])
    missing = reproduce(root, tmp_path / "other", "--only", "main", "vcgbench", "--prompts", pack)
    assert missing.returncode == 1 and "image_seq_v3/describe.txt: cannot read the prompt" in missing.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(root, tmp_path, capsys):
    roofline = GPU.save(tmp_path / "gpu.json")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    common = ["reproduce", "--root", str(root), "--out", str(tmp_path / "out"), "--dry-run"]
    judge = ["--judge", "openai", "--judge-model", "m-2026-01-01", "--price", "1", "2"]
    assert main([*common, "--roofline", str(roofline), *judge, "--only", "main", "ablations"]) == 1  # much is missing
    text = capsys.readouterr().out
    assert text.startswith("16 runs measure 82 numbers of the paper\n7b: no checkpoint given")
    assert "7b/egoschema: 2 questions of 500 x 13 settings = 26 answers" in text
    assert "34b/tgif: 13,691 questions (the published number) x 1 setting = 13,691 answers" in text
    assert text.count("MISSING") == 12 and "MISSING  tgif: no question file under" in text
    assert "GPU-hours, up to" in text and "at most 6,986 requests" in text and "answers to generate; about" in text
    dollars = float(text.partition("to a judge, at most $")[2].split()[0].replace(",", ""))
    assert dollars > 10
    assert main([*common, "--only", "main", "egoschema", "msvd", "--model", "7b=tiny"]) == 0
    text = capsys.readouterr().out
    assert "7b: tiny" in text and "MISSING" not in text and "2 runs measure 3 numbers" in text
    assert "hours and memory need a GPU here, --roofline FILE" in text
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_missing_videos_are_named_before_the_run(root, tmp_path, capsys):
    with (root / "multiple_choice_qa/EgoSchema.csv").open("a") as file:
        file.write("gone,which?,x,x,y\n")
    common = ["reproduce", "--root", str(root), "--out", str(tmp_path / "out"), "--model", "7b=tiny", "--only", "main"]
    assert main([*common, "egoschema", "--dry-run"]) == 0
    assert "MISSING  1 videos, whose questions would fail: gone" in capsys.readouterr().out
    (root / "open_ended_qa/MSVD_QA.csv").write_text("video_name,question,answer\ngone,q,x\nlost,q,x\n")
    assert main([*common, "msvd", "--dry-run"]) == 1
    assert "none of its 2 videos is in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "9b=tiny"], "--model 9b=tiny: the paper's models are 7b and 34b, got '9b'"),
        (["--model", "tiny"], "--model tiny: needed NAME=VALUE"),
        (["--model", "7b="], "--model 7b=: needed one checkpoint for 7b"),
        (["--model", "7b=tiny", "7B=tiny"], "--model 7B=tiny: needed one checkpoint for 7b"),
        (["--model", "7b=gone"], "no model is called 'gone'"),
        (["--model", "7b=34b"], "--model 7b=34b: only for planning; needed a checkpoint folder or a Hub name"),
        ([], "--model: needed 7b=PATH, 34b=PATH or both (a dry run needs none)"),
        (["--model", "7b=tiny", "--only", "main", "typo"], "--only typo: choose from main, ablations, msvd"),
        (["--model", "7b=tiny", "--only", "fast_grid", "msvd"], "the paper has no such numbers"),
        (
            ["--model", "7b=tiny", "--judge", "openai"],
            "the openai judge needs --judge-model, the exact name of a model",
        ),
        (["--model", "7b=tiny", "--judge", "local"], "the local judge needs --judge-model, the folder of a model"),
        (["--model", "7b=tiny", "--judge", "local", "--judge-model", "gone"], "--judge-model gone: no such folder"),
        (["--model", "7b=tiny", "--judge", "openai", "--judge-model", "m", "--yes"], "needs OPENAI_API_KEY"),
        (["--model", "7b=tiny", "--judge", "match-exact", "--batch"], "--batch is for the openai judge"),
        (["--model", "7b=tiny", "--judge-model", "m"], "--judge-model and --limit-cost need --judge"),
        (
            ["--model", "7b=tiny", "--judge", "openai", "--judge-model", "m", "--limit-cost", "1"],
            "--limit-cost needs --price",
        ),
        (["--model", "7b=tiny", "--limit", "0"], "limit must be at least 1, got 0"),
        (["--model", "7b=tiny", "--root", "gone"], "--root gone: needed the folder of the benchmarks"),
        (["--model", "7b=tiny", "--prompts", "gone"], "gone/image_seq_v3/open.txt: cannot read the prompt"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(root, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["reproduce", "--root", str(root), "--out", "out", *arguments]) == 1
    found = capsys.readouterr()
    assert found.err.startswith("sfllava: ") and len(found.err.strip().splitlines()) == 1, found.err
    assert message in found.err and not (tmp_path / "out").exists()


def test_an_unknown_judge_is_a_usage_error(root, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", "--root", str(root), "--out", "out", "--model", "7b=tiny", "--judge", "nobody"])
    assert "invalid choice: 'nobody'" in capsys.readouterr().err
