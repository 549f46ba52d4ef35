from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_runs import SETTINGS, SMALL, plain, questions_csv, run

from sfllava.aggregators.slowfast import SlowFast
from sfllava.analysis.compare import compare
from sfllava.benchmarks import load_benchmark
from sfllava.models.load import load_model
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.prompts import Prompt
from sfllava.runs.run_folder import RunError, read_rows
from sfllava.settings import Setting

OLD = Setting(4, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")


DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"settings": Setting(5, str(SMALL.aggregation))}, f"settings that are not requested now: {SMALL.name}$"),
        ({"limit": 5}, r"12 questions were asked, now 5 \(limit was null, is 5\)$"),
        ({"prompt": Prompt("<video> {question}")}, "prompt was .* is .*<video> {question}"),
        ({"settings": Setting(6, SlowFast(2, "spatial_2d_avg_pool", (1, 1)), SMALL.name)},
         rf"settings\.{SMALL.name}\.aggregation was .*fast_2x2.*, is .*fast_1x1.*; settings\.{SMALL.name}\.budget was 312, is 294$"),
    ],
)  # fmt: skip
def test_changed_settings_are_an_error_that_shows_them(models, benchmark, tmp_path, changes, shown):
    run(models(), benchmark, tmp_path / "run")
    before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    with pytest.raises(RunError, match=f"holds another run.*{shown}"):
        run(models(), benchmark, tmp_path / "run", **changes)
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before


def test_long_texts_are_told_apart_where_they_differ(models, benchmark, tmp_path):
    long = "Watch closely. " * 30
    run(models(), benchmark, tmp_path / "run", prompt=Prompt(long + "<video> {question} Now:"))
    with pytest.raises(RunError, match=r'prompt was .*closely.* Now:", is .*closely.* Then:"$') as raised:
        run(models(), benchmark, tmp_path / "run", prompt=Prompt(long + "<video> {question} Then:"))
    assert len(str(raised.value)) < 500


def test_another_model_or_question_file_is_another_run(models, benchmark, videos, tmp_path):
    run(models(), benchmark, tmp_path / "run")
    with pytest.raises(RunError, match=r"model\.sha256_sampled was"):
        run(models("vicuna", "original"), benchmark, tmp_path / "run")
    other = load_benchmark("open", questions_csv(tmp_path / "q2.csv", each=3), videos)
    with pytest.raises(RunError, match=r"12 questions were asked, now 9 \(questions_sha256 was"):
        run(models(), other, tmp_path / "run")


@pytest.mark.parametrize("options", [{"seed": 3}, {"limit": 12}, {"limit": 90, "seed": 0}])
def test_the_same_questions_are_the_same_run_however_they_were_chosen(models, benchmark, tmp_path, options):
    run(models(), benchmark, tmp_path / "run")
    before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    assert run(models(), benchmark, tmp_path / "run", **options).scores[SMALL.name]["answered"] == 12
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before
    sessions = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    assert [(s["limit"], s["seed"]) for s in sessions] == [(None, None), (options.get("limit"), options.get("seed"))]


def test_a_setting_is_added_to_a_finished_run(models, benchmark, tmp_path, monkeypatch):
    run(models(), benchmark, tmp_path / "run", SETTINGS[:2])
    before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    encode, encoded = TransformersVideoLM.encode, []
    monkeypatch.setattr(
        TransformersVideoLM, "encode", lambda self, frames: encoded.append(len(frames)) or encode(self, frames)
    )
    scores = run(models(), benchmark, tmp_path / "run", [SETTINGS[2], *SETTINGS[:2]]).scores
    assert encoded == [4, 4, 4] and all(s["answered"] == 12 for s in scores.values())
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes().startswith(before)
    identity = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    assert [s["name"] for s in identity["settings"]] == [s.name for s in SETTINGS]
    assert plain(read_rows(tmp_path / "run")) == plain(
        read_rows(run(models(), benchmark, tmp_path / "all", SETTINGS).path)
    )
    with pytest.raises(RunError, match=f"not requested now: {SETTINGS[0].name}, {SETTINGS[2].name}$"):
        run(models(), benchmark, tmp_path / "run", SETTINGS[1])


@pytest.fixture
def old_run(videos, tmp_path):
    """A run of version 0.1.0 with --limit 8 --seed 0, stopped after five rows, and its benchmark.

    It has the hash of the tiny model of today, which has been trained further since.
    """
    shutil.copytree(DATA / "run-0.1.0", tmp_path / "old")
    file = tmp_path / "old" / "run.json"
    facts = json.loads(file.read_text())
    assert facts["identity"]["model"]["sha256_sampled"]
    facts["identity"]["model"]["sha256_sampled"] = load_model("tiny", "cpu").info.fingerprint
    file.write_text(json.dumps(facts))
    return tmp_path / "old", load_benchmark("open", DATA / "questions.csv", videos)


def test_a_run_of_the_first_version_goes_on(old_run):
    folder, benchmark = old_run
    model = load_model("tiny", "cpu")
    before = (folder / "predictions.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"8 questions were asked, now 8 \(seed was 0, is 1\)$"):
        run(model, benchmark, folder, OLD, limit=8, seed=1)
    with pytest.raises(
        RunError, match=r"8 questions were asked, now 12 \(limit was 8, is null; seed was 0, is null\)$"
    ):
        run(model, benchmark, folder, OLD)
    scores = run(model, benchmark, folder, [OLD, Setting(2, "concat")], limit=8, seed=0).scores
    assert [s["answered"] for s in scores.values()] == [8, 8]
    assert (folder / "predictions.jsonl").read_bytes().startswith(before) and before.count(b"\n") == 5
    fresh = run(model, benchmark, folder.parent / "new", [OLD, Setting(2, "concat")], limit=8, seed=0)
    asked = [{(row["key"], row["setting"]) for row in read_rows(path)} for path in (folder, fresh.path)]
    assert asked[0] == asked[1] and len(asked[0]) == 16
    one, other = (json.loads((path / "run.json").read_text())["identity"] for path in (folder, fresh.path))
    assert one == other


def test_runs_of_two_versions_are_compared_by_what_was_asked(old_run):
    folder, benchmark = old_run
    model = load_model("tiny", "cpu")
    new, other = (run(model, benchmark, folder.parent / f"{n}", OLD, limit=8, seed=n).path for n in (0, 1))
    shutil.copy(new / "predictions.jsonl", folder)  # as if the first version had finished it
    assert "too few videos to tell settings apart" in str(compare([folder, new]))
    with pytest.raises(
        RunError, match=r"not asked the same questions: open \(8 questions, .* against open \(8 questions"
    ):
        compare([folder, other])


def test_a_run_of_the_first_version_on_another_question_file(old_run, videos, tmp_path):
    folder, _ = old_run
    other = load_benchmark("open", questions_csv(tmp_path / "q.csv", each=3), videos)
    with pytest.raises(RunError, match=r'8 questions were asked, now 8 \(questions_sha256 was "508822cf.*", is "'):
        run(load_model("tiny", "cpu"), other, folder, OLD, limit=8, seed=0)
