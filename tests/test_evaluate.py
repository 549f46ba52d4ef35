from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_table import record

from sfllava import cli, jobs
from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.disk import as_line
from sfllava.evaluation import evaluate as evaluate_function
from sfllava.failures import Outcome, Streak, of_error
from sfllava.methods import tile
from sfllava.models.llava_next import LlavaNext
from sfllava.models.load import load_model
from sfllava.models.outline import ContextError
from sfllava.prompts import Prompt
from sfllava.results import compare
from sfllava.runfolder import RunError, read_rows
from sfllava.sampler import sample_indices
from sfllava.slowfast import SlowFast
from sfllava.types import Setting, SfllavaError

DATA = Path(__file__).parent / "data"
SMALL = Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")
SETTINGS = [
    SMALL,
    Setting(6, "slowfast-slow_1frms_concat-fast_1x1"),
    Setting(4, "slowfast-slow_0frms_concat-fast_3x3"),
]
HEADER = "video_name,question,answer,question_id\n"


def questions_csv(path: Path, names="abc", each=4) -> Path:
    rows = [
        f"{name},what is {word} in {name}?,{word},{word}\n"
        for name in names
        for word in ("it", "red", "up", "on")[:each]
    ]
    path.write_text(HEADER + "".join(rows))
    return path


@pytest.fixture
def benchmark(videos, tmp_path):
    return load_benchmark("open", questions_csv(tmp_path / "q.csv"), videos)


def run(model, benchmark, out, settings=SMALL, **options):
    return evaluate_function(model, benchmark, settings, out, max_new_tokens=6, progress=False, **options)


def plain(rows):
    """Rows without the seconds, in the order of keys."""
    return sorted(
        ({k: v for k, v in row.items() if k != "seconds"} for row in rows), key=lambda r: (r["key"], r["setting"])
    )


def test_a_run_folder(models, benchmark, tmp_path):
    result = run(models(), benchmark, tmp_path / "run", SETTINGS)
    rows = list(read_rows(tmp_path / "run"))
    assert len(rows) == 12 * 3 == len({(r["key"], r["setting"]) for r in rows})
    for row in rows:
        assert row["error"] is None and 1 <= len(row["token_ids"]) <= 6 and row["frames"] in (4, 6)
        assert row["visual_tokens"] == next(s for s in SETTINGS if s.name == row["setting"]).budget()
        assert row["seconds"]["answer"] > 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    first = {"name": SMALL.name, "frames": 6, "aggregation": str(SMALL.aggregation), "budget": 312}
    assert about["identity"]["settings"][0] == first and about["identity"]["questions"] == 12
    assert about["sessions"][0]["questions_sha256"] == benchmark.fingerprint
    assert about["identity"]["model"]["sha256_sampled"] == models().fingerprint
    assert {"torch", "transformers", "python"} <= about["sessions"][0]["versions"].keys()
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores == result.scores and scores[SMALL.name]["questions"] == 12
    assert "ended" in (tmp_path / "run" / "log.txt").read_text()


def test_answers_are_those_of_one_question_at_a_time(models, benchmark, tmp_path):
    from sfllava.sampler import read_video

    run(models(), benchmark, tmp_path / "run", SETTINGS)
    said = {(r["key"], r["setting"]): tuple(r["token_ids"]) for r in read_rows(tmp_path / "run")}
    for question in benchmark.questions[::3]:
        for setting in SETTINGS:
            video = read_video(benchmark.find_video(question.video), setting.frames, size=(336, 336))
            tokens = setting.tokens(models().encode(video.frames))
            alone = models().answer(tokens, [question], max_new_tokens=6, share_prefix=False)
            assert said[question.key, setting.name] == alone[0].token_ids


def test_each_frame_is_encoded_once_for_all_settings(models, benchmark, tmp_path, monkeypatch):
    calls = []
    encode = LlavaNext.encode
    monkeypatch.setattr(LlavaNext, "encode", lambda self, frames: calls.append(len(frames)) or encode(self, frames))
    run(models(), benchmark, tmp_path / "run", SETTINGS)
    # 6 frames and 4 of each of three videos, of which some are the same
    wanted = [len(set(sample_indices(n, 6)) | set(sample_indices(n, 4))) for n in (20, 21, 22)]
    assert calls == wanted and max(wanted) <= 10


def test_a_run_goes_on_where_it_stopped(models, benchmark, tmp_path):
    whole = plain(read_rows(run(models(), benchmark, tmp_path / "whole", SETTINGS).path))
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    file = tmp_path / "cut" / "predictions.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:7]) + lines[7][:40])  # a half-written line
    (tmp_path / "cut" / "scores.json").unlink()
    result = run(models(), benchmark, tmp_path / "cut", SETTINGS)
    assert file.read_bytes().startswith(b"".join(lines[:7]))
    assert plain(read_rows(result.path)) == whole
    assert result.scores == json.loads((tmp_path / "whole" / "scores.json").read_text())
    assert "cut off a half-written last line of 40 bytes" in log_of(result.path)
    before = file.read_bytes()
    run(models(), benchmark, tmp_path / "cut", SETTINGS)  # nothing left to do
    assert file.read_bytes() == before
    sessions = json.loads((tmp_path / "cut" / "run.json").read_text())["sessions"]
    assert len(sessions) == 3 and all("torch" in session["versions"] for session in sessions)


def test_a_pool_of_one_s_own_can_be_resumed(models, benchmark, tmp_path):
    def make():
        class Corners:
            def __call__(self, grid):
                return grid[:, 0, 0]

        return Corners()

    for _ in range(2):  # another object of the class, as in another process
        run(models(), benchmark, tmp_path / "run", [Setting(4, make()), Setting(4, SlowFast(2, make(), (1, 1)))])
    assert len(list(read_rows(tmp_path / "run"))) == 24


class Own:
    """Methods of a user's own that print one name, whatever they do."""

    def __str__(self):
        return "own"


@dataclass
class Tiles(Own):
    """Frames side by side, `columns` in an image; not frozen, so that it has no hash."""

    columns: int

    def compose(self, frames):
        return np.stack([tile(frames[i : i + self.columns], 1, self.columns) for i in range(0, 4, self.columns)])

    def __call__(self, grid):
        return grid[:, ::3, ::3].flatten(0, 2)


@dataclass
class Strided(Own):
    stride: int

    def __call__(self, grid):
        return grid[:, :: self.stride, :: self.stride].flatten(0, 2)


def test_methods_of_one_name_are_told_apart(models, benchmark, tmp_path):
    settings = [
        Setting(4, Tiles(1), "each"),
        Setting(4, Tiles(4), "row"),
        Setting(4, SlowFast(2, Strided(3), (1, 1)), "fine"),
        Setting(4, SlowFast(2, Strided(6), (1, 1)), "coarse"),
    ]
    rows = plain(read_rows(run(models(), benchmark, tmp_path / "run", settings).path))
    assert {row["setting"]: row["visual_tokens"] for row in rows} == {"each": 256, "row": 64, "fine": 132, "coarse": 36}
    for setting in settings:
        alone = run(models(), benchmark, tmp_path / setting.label, setting)
        same = ("key", "prediction", "visual_tokens")
        mine = [row for row in rows if row["setting"] == setting.label]
        assert [[r[k] for k in same] for r in mine] == [[r[k] for k in same] for r in plain(read_rows(alone.path))]


def log_of(path):
    return (path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"settings": Setting(5, str(SMALL.aggregation))}, f"settings that are not asked for now: {SMALL.name}$"),
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
    encode, encoded = LlavaNext.encode, []
    monkeypatch.setattr(LlavaNext, "encode", lambda self, frames: encoded.append(len(frames)) or encode(self, frames))
    scores = run(models(), benchmark, tmp_path / "run", [SETTINGS[2], *SETTINGS[:2]]).scores
    assert encoded == [4, 4, 4] and all(s["answered"] == 12 for s in scores.values())
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes().startswith(before)
    identity = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    assert [s["name"] for s in identity["settings"]] == [s.name for s in SETTINGS]
    assert plain(read_rows(tmp_path / "run")) == plain(
        read_rows(run(models(), benchmark, tmp_path / "all", SETTINGS).path)
    )
    with pytest.raises(RunError, match=f"not asked for now: {SETTINGS[0].name}, {SETTINGS[2].name}$"):
        run(models(), benchmark, tmp_path / "run", SETTINGS[1])


OLD = Setting(4, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")


@pytest.fixture
def old_run(videos, tmp_path):
    """A run of version 0.1.0 with --limit 8 --seed 0, stopped after five rows, and its benchmark."""
    shutil.copytree(DATA / "run-0.1.0", tmp_path / "old")
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
    assert "too few videos to tell settings apart" in compare([folder, new])
    with pytest.raises(
        RunError, match=r"not asked the same questions: open \(8 questions, .* against open \(8 questions"
    ):
        compare([folder, other])


def test_a_run_of_the_first_version_on_another_question_file(old_run, videos, tmp_path):
    folder, _ = old_run
    other = load_benchmark("open", questions_csv(tmp_path / "q.csv", each=3), videos)
    with pytest.raises(RunError, match=r'8 questions were asked, now 8 \(questions_sha256 was "508822cf.*", is "'):
        run(load_model("tiny", "cpu"), other, folder, OLD, limit=8, seed=0)


def test_no_question_leaves_the_denominator(models, videos, tmp_path):
    folder = shutil.copytree(videos, tmp_path / "videos")
    (folder / "b.mp4").write_bytes((folder / "b.mp4").read_bytes()[:200])
    (folder / "empty.mp4").touch()
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", ["a", "b", "gone", "empty"], 2), folder)
    result = run(models(), benchmark, tmp_path / "run")
    scores = result.scores[SMALL.name]
    assert (scores["questions"], scores["answered"], scores["failed"], scores["not_asked"]) == (8, 2, 6, 0)
    assert sum(scores["reasons"].values()) == 6
    reasons = {r["video"]: r["error"] for r in read_rows(result.path)}
    assert reasons["a"] is None and "gone: no such video under" in reasons["gone"]
    assert "b.mp4: not a readable video" in reasons["b"] and "the file is empty" in reasons["empty"]
    assert scores["rules"]["match-exact"]["accuracy"] == scores["rules"]["match-exact"]["correct"] / 8
    assert "8 questions, 2 answered, 6 failed" in str(result) and "failed 2 x: " in str(result)
    # mended, and asked again
    shutil.copy(videos / "b.mp4", folder / "b.mp4")
    again = run(models(), benchmark, tmp_path / "run").scores[SMALL.name]
    assert again["failed"] == 6
    again = run(models(), benchmark, tmp_path / "run", retry_failed=True).scores[SMALL.name]
    assert (again["answered"], again["failed"]) == (4, 4)
    # a row without a prediction has failed too, whatever left it so
    rows = [row | ({"prediction": None} if row["video"] == "a" else {}) for row in read_rows(tmp_path / "run")]
    (tmp_path / "run" / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = run(models(), benchmark, tmp_path / "run", retry_failed=True).scores[SMALL.name]
    assert (again["answered"], again["failed"]) == (4, 4)
    assert len(list(read_rows(tmp_path / "run"))) == 8


@pytest.mark.parametrize(("fails", "answered"), [((2,), 12), ((2, 4, 5), 8), ((1, 2, 3), 12)])
def test_a_video_that_fails_is_tried_again(models, benchmark, tmp_path, monkeypatch, fails, answered):
    """The three videos are answered together; one that fails is tried by itself, and once more."""
    encode, tries = LlavaNext.encode, []

    def flaky(self, frames):
        tries.append(1)
        if len(tries) in fails:
            raise RuntimeError("CUDA error:\n  an illegal memory access")
        return encode(self, frames)

    monkeypatch.setattr(LlavaNext, "encode", flaky)
    scores = run(models(), benchmark, tmp_path / "run").scores[SMALL.name]
    assert (scores["answered"], scores["failed"]) == (answered, 12 - answered)
    assert scores["reasons"] == ({"RuntimeError: CUDA error: an illegal memory access": 4} if answered < 12 else {})


def broken_from(monkeypatch, call: int, message="CUDA error: device-side assert triggered at 0x7f%x"):
    """From this call on the model raises, as a GPU does after an assertion on the device."""
    encode, calls = LlavaNext.encode, []

    def broken(self, frames):
        calls.append(1)
        if len(calls) >= call:
            raise RuntimeError(message % len(calls))
        return encode(self, frames)

    monkeypatch.setattr(LlavaNext, "encode", broken)
    return calls


@pytest.mark.parametrize("settings", [SMALL, SETTINGS])
def test_a_broken_device_stops_the_run_and_fails_no_video(models, videos, tmp_path, monkeypatch, settings):
    csv, folder = twelve_videos(videos, tmp_path)
    benchmark = load_benchmark("open", csv, folder)
    calls = broken_from(monkeypatch, 2)
    with pytest.raises(SfllavaError, match=r"3 videos in a row failed with the same error.*RuntimeError: CUDA error"):
        run(models(), benchmark, tmp_path / "run", settings)
    rows = plain(read_rows(tmp_path / "run"))
    assert {row["video"] for row in rows} == {"a0"} and not any(row["error"] for row in rows)
    assert len(calls) < 20, "it went on"
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert all((s["answered"], s["failed"], s["not_asked"]) == (4, 0, 44) for s in scores.values())
    monkeypatch.undo()
    result = run(models(), benchmark, tmp_path / "run", settings)
    assert all((s["answered"], s["failed"]) == (48, 0) for s in result.scores.values())
    record("a device that is broken from the second video on", 1, 1, 0, "the run stopped; resumed, with no failed row")


def test_a_run_too_short_to_tell_keeps_its_failures(models, benchmark, tmp_path, monkeypatch):
    broken_from(monkeypatch, 2)
    scores = run(models(), benchmark, tmp_path / "run").scores[SMALL.name]
    assert (scores["answered"], scores["failed"]) == (4, 8)


class OnReal(Own):
    """A method that fails at some videos, by their number of frames."""

    def __init__(self, *frames):
        self.frames = frames

    def __call__(self, grid):
        if grid.shape[-1] > 1 and len(grid) in self.frames:  # of a video, not of the budget
            raise ValueError(f"{len(grid)} frames")
        return grid[:, ::8, ::8].flatten(0, 2)


def test_videos_that_fail_for_reasons_of_their_own_do_not_stop_a_run(models, videos, tmp_path):
    """Neither odd videos among others, nor many that cannot be read."""
    csv, folder = twelve_videos(videos, tmp_path)
    for name in ("c0", "a1", "c1", "a2"):
        (folder / f"{name}.mp4").unlink()
        (folder / f"{name}.mp4").write_bytes(b"no video")
    benchmark = load_benchmark("open", csv, folder)
    result = run(models(), benchmark, tmp_path / "run", [SMALL, Setting(30, OnReal(21))])  # b.mp4
    small, own = result.scores.values()
    assert (small["answered"], small["failed"]) == (32, 16) and (own["answered"], own["failed"]) == (16, 32)
    assert own["reasons"]["ValueError: 21 frames"] == 16


def test_what_ends_a_streak_of_failures():
    def row(video, error=None, setting="s"):
        return {"video": video, "setting": setting, "error": error}

    def failed(video, error, setting="s"):
        return of_error(video, [row(video, str(error), setting)], error, setting)

    def written(streak, *outcomes):
        return [row["video"] for done in outcomes for rows in streak.add(done) for row in rows]

    broken = RuntimeError("CUDA error 700 at 0xab1")
    for ends in (Outcome([row("c")]), failed("c", ValueError("another"))):
        streak = Streak()
        assert written(streak, failed("a", broken), failed("b", broken)) == []
        assert written(streak, ends)[:2] == ["a", "b"] and not streak.broken
    # what says nothing of the device is written, and ends nothing
    short = torch.OutOfMemoryError("CUDA out of memory")
    streak = Streak()
    assert written(streak, failed("a", broken), failed("b", short), failed("c", SfllavaError("no video"))) == ["b", "c"]
    assert written(streak, failed("d", broken), failed("e", RuntimeError("CUDA error 710 at 0xcd2"))) == []
    assert streak.broken and streak.videos == ["a", "d", "e"]
    # a setting that fails at every video is told, whatever others answer and say
    streak = Streak()
    for video in "abc":
        assert not streak.broken
        assert written(streak, failed(video, broken, "bad"), failed(video, ValueError("x"), "worse")) == []
        assert written(streak, Outcome([row(video, setting="good")])) == [video]
    assert streak.broken
    # odd videos of a group, done after the others of it, are not in a row
    streak = Streak({video: i for i, video in enumerate("abcdef")})
    assert written(streak, Outcome([row(video) for video in "ace"])) == ["a", "c", "e"]
    assert written(streak, *(failed(video, broken) for video in "bdf")) == [] and not streak.broken


@pytest.mark.parametrize("order", [1, -1])
def test_a_method_that_fails_at_every_video_stops_the_run(models, videos, tmp_path, order):
    """Wherever it stands among the settings; what the others answered is kept."""
    csv, folder = twelve_videos(videos, tmp_path)
    settings = [SMALL, Setting(30, OnReal(20, 21, 22))][::order]
    with pytest.raises(SfllavaError, match=r"3 videos in a row failed.* ValueError: 2\d frames"):
        run(models(), load_benchmark("open", csv, folder), tmp_path / "run", settings)
    rows = plain(read_rows(tmp_path / "run"))
    assert rows and all(row["setting"] == SMALL.name and row["error"] is None for row in rows)


def test_a_broken_device_is_an_exit_status(checkpoints, benchmark, videos, tmp_path, monkeypatch, capsys):
    csv, folder = twelve_videos(videos, tmp_path)
    broken_from(monkeypatch, 2)
    arguments = command(checkpoints(), csv, folder, tmp_path / "run")[3:]
    assert cli.main(arguments) == 1
    err = capsys.readouterr().err
    assert "sfllava: 3 videos in a row failed" in err and "Traceback" not in err


def test_videos_with_few_questions_are_answered_together(models, videos, tmp_path, monkeypatch):
    """Of equal length and not (b has one frame), with settings that share a front, and one that tiles frames."""
    settings = [*SETTINGS, Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_1x1"), Setting(6, "image_grid-2x3")]
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", each=1), videos)
    forward, steps = LlavaNext._forward, []

    def counted(self, embeds, **options):
        steps.append(embeds.shape[:2])
        return forward(self, embeds, **options)

    monkeypatch.setattr(LlavaNext, "_forward", counted)
    run(models(), benchmark, tmp_path / "together", settings)
    together = len(steps)
    assert (3, 1) in steps, "no step said a token for three videos"
    steps.clear()
    monkeypatch.setattr(jobs, "TOGETHER", 1)
    run(models(), benchmark, tmp_path / "apart", settings)
    assert plain(read_rows(tmp_path / "together")) == plain(read_rows(tmp_path / "apart"))
    assert together < 0.6 * len(steps)


def test_one_question_a_video_is_answered_twelve_at_a_time(models, videos, tmp_path, monkeypatch):
    for i in range(30):
        os.link(videos / "a.mp4", tmp_path / f"v{i}.mp4")
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", [f"v{i}" for i in range(30)], 1), tmp_path)
    answer, sizes = LlavaNext.answer_each, []
    spy = lambda self, films, **options: sizes.append(len(films)) or answer(self, films, **options)  # noqa: E731
    monkeypatch.setattr(LlavaNext, "answer_each", spy)
    run(models(), benchmark, tmp_path / "run")
    assert sizes == [12, 12, 6] and len(list(read_rows(tmp_path / "run"))) == 30


def test_memory_that_is_too_small_for_a_group(checkpoints, benchmark, tmp_path, monkeypatch, caplog):
    """Three videos do not fit together, nor four questions: two do, and nothing is lost."""
    model, forward, packs = load_model(checkpoints()), LlavaNext._forward, []

    def watched(self, embeds, **options):
        packs.append(embeds.shape[1] if options.get("attention_mask") is not None else 0)
        return forward(self, embeds, **options)

    def small(self, embeds, **options):
        if len(embeds) > 1 or (options.get("attention_mask") is not None and embeds.shape[1] > 0.6 * max(packs)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, embeds, **options)

    monkeypatch.setattr(LlavaNext, "_forward", watched)
    run(model, benchmark, tmp_path / "whole", SETTINGS)

    monkeypatch.setattr(LlavaNext, "_forward", small)
    run(model, benchmark, tmp_path / "parts", SETTINGS)
    assert plain(read_rows(tmp_path / "parts")) == plain(read_rows(tmp_path / "whole"))
    assert "going on with 2 questions at a time" in caplog.text and "CUDA out of memory" in log_of(tmp_path / "parts")
    told = "raised in place of CUDA; answered in smaller groups, rows as with room for all"
    record("out of memory: a run of groups too large", 1, 1, 0, told)


class Room:
    """A device with room for the patch grids of so many videos."""

    def __init__(self, monkeypatch, most):
        self.encoded, self.decoded, self.grids = [], [], []
        encode, decode = LlavaNext.encode, jobs.Desk._decode

        def limited(model, frames):
            self.encoded.append(len(frames))
            self.grids = [grid for grid in self.grids if grid() is not None]
            if len(self.grids) >= most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            grid = encode(model, frames)
            self.grids.append(weakref.ref(grid))
            return grid

        def counted(desk, job, *decoder):
            self.decoded.append(job.video)
            return decode(desk, job, *decoder)

        monkeypatch.setattr(LlavaNext, "encode", limited)
        monkeypatch.setattr(jobs.Desk, "_decode", counted)


@pytest.mark.parametrize(("most", "encodes"), [(1, 7), (2, 7), (4, 7), (6, 6)])
def test_memory_too_small_for_the_grids_of_a_group_is_learned(models, videos, tmp_path, monkeypatch, most, encodes):
    csv, folder = twelve_videos(videos, tmp_path)
    six = load_benchmark("open", questions_csv(csv, [f"{name}{i}" for i in (0, 1) for name in "abc"], 2), folder)
    whole = plain(read_rows(run(models(), six, tmp_path / "whole", SETTINGS).path))
    room = Room(monkeypatch, most)
    assert plain(read_rows(run(models(), six, tmp_path / "run", SETTINGS).path)) == whole
    assert len(room.encoded) == encodes and len(room.decoded) == 6


def test_memory_too_small_for_the_answers_of_a_group_is_learned(models, videos, tmp_path, monkeypatch):
    """Room for the prompts of two videos: what the first group of six costs is paid once."""
    csv, folder = twelve_videos(videos, tmp_path)
    benchmark = load_benchmark(
        "open", questions_csv(csv, [f"{name}{i}" for i in range(4) for name in "abc"], 2), folder
    )
    whole = plain(read_rows(run(models(), benchmark, tmp_path / "whole").path))
    room, answer, groups = Room(monkeypatch, 99), LlavaNext.answer_each, []

    def small(self, films, **options):
        groups.append(len(films))
        if len(films) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return answer(self, films, **options)

    monkeypatch.setattr(LlavaNext, "answer_each", small)
    assert plain(read_rows(run(models(), benchmark, tmp_path / "run").path)) == whole
    assert groups[:2] == [6, 3] and max(groups[2:]) <= 2 and len(room.decoded) == 12
    assert len(room.encoded) <= 12 + 6


def test_a_full_disk_is_told_by_the_rows_that_it_did_not_take(models, benchmark, tmp_path, monkeypatch):
    """Not by the scores, which find no room either."""
    full = OSError(errno.ENOSPC, "No space left on device")
    write, write_bytes = os.write, Path.write_bytes

    def no_rows(descriptor, data):
        if Path(f"/proc/self/fd/{descriptor}").resolve().name == "predictions.jsonl":
            raise full
        return write(descriptor, data)

    def no_scores(path, data):
        if path.name.endswith("scores.json"):
            raise full
        return write_bytes(path, data)

    monkeypatch.setattr(os, "write", no_rows)
    monkeypatch.setattr(Path, "write_bytes", no_scores)
    with pytest.raises(RunError, match=r"predictions\.jsonl: cannot write: No space left"):
        run(models(), benchmark, tmp_path / "run")
    monkeypatch.undo()
    assert len(list(read_rows(run(models(), benchmark, tmp_path / "run").path))) == 12


def test_a_prompt_too_large_for_the_memory_is_a_failed_row(models, benchmark, tmp_path, monkeypatch):
    forward = LlavaNext._forward

    def small(self, embeds, **options):
        if embeds.shape[1] > 100 and options.get("attention_mask") is None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, embeds, **options)

    monkeypatch.setattr(LlavaNext, "_forward", small)
    scores = run(models(), benchmark, tmp_path / "run", [SMALL, SETTINGS[1]]).scores
    assert (
        scores[SMALL.name]["failed"] == 12
        and scores[SETTINGS[1].name]["answered"] == 12 - scores[SETTINGS[1].name]["failed"]
    )
    assert "CUDA out of memory" in next(iter(scores[SMALL.name]["reasons"]))
    record(
        "out of memory: a prompt too large alone", 12, 12, 0, "questions failed, with the reason; the others answered"
    )


def test_a_hanging_decoder_gives_way_to_the_other(models, benchmark, tmp_path, monkeypatch):
    from test_sampler import hanging_decord

    hanging_decord(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    scores = run(models(), benchmark, tmp_path / "run", decode_seconds=2).scores[SMALL.name]
    assert scores["answered"] == 12  # PyAV at the second try
    assert "decoding took longer than 2 s" in log_of(tmp_path / "run")


def test_a_damaged_video_is_noted_in_its_rows(models, clip, tmp_path):
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", ["half"]), tmp_path)
    run(models(), benchmark, tmp_path / "run")
    assert all("of 376 declared frames" in row["damage"] for row in read_rows(tmp_path / "run"))


def test_tokens_that_do_not_fit_are_refused_before_any_compute(models, benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(LlavaNext, "encode", lambda *a: pytest.fail("computed"))
    with pytest.raises(ContextError, match=r"28800 visual and .* do not fit the context of 8192"):
        run(models(), benchmark, tmp_path / "run", [SMALL, Setting(50, "concat")])
    assert not (tmp_path / "run").exists()


def test_one_question_too_long_is_one_failed_row(models, videos, tmp_path):
    (tmp_path / "q.csv").write_text(HEADER + f"a,short?,x,1\na,{'very long ' * 3000}?,x,2\n")
    scores = run(models(), load_benchmark("open", tmp_path / "q.csv", videos), tmp_path / "run").scores[SMALL.name]
    assert (scores["answered"], scores["failed"]) == (1, 1)
    assert "do not fit the context of 8192" in next(iter(scores["reasons"]))


def test_limit_and_seed(models, benchmark, tmp_path):
    def keys(out, **options):
        run(models(), benchmark, tmp_path / out, **options)
        return [row["key"] for row in read_rows(tmp_path / out)]

    assert keys("first", limit=5) == [f"open/{i}" for i in range(5)]
    chosen = keys("seed", limit=5, seed=3)
    assert len(chosen) == 5 and chosen != [f"open/{i}" for i in range(5)] and chosen == keys("again", limit=5, seed=3)
    with pytest.raises(SfllavaError, match="limit must be at least 1, got 0"):
        keys("none", limit=0)


def test_choice_by_generation_and_by_logits(models, videos, tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question,answer,a0,a1,a2\na,what?,y,x,y,z\nb,where?,x,x,y,x\n")
    benchmark = load_benchmark("choice", tmp_path / "q.csv", videos)
    scores = run(models(), benchmark, tmp_path / "said").scores[SMALL.name]
    assert set(scores["rules"]) == {"choice-published", "choice-strict"}
    assert all(row["token_ids"] for row in read_rows(tmp_path / "said"))
    run(models(), benchmark, tmp_path / "logits", read="logits")
    for row in read_rows(tmp_path / "logits"):
        assert set(row["letters"]) == set("ABC") and row["prediction"] == max(row["letters"], key=row["letters"].get)


@pytest.mark.parametrize("read", ["generate", "logits"])
def test_logits_that_are_not_finite_are_failed_rows(checkpoints, videos, tmp_path, read):
    """As where half precision overflows: at one word of one question, and then everywhere."""
    (tmp_path / "q.csv").write_text("video_name,question,answer,a0,a1\na,what?,y,x,y\na,whose animals?,x,x,y\n")
    benchmark, model = load_benchmark("choice", tmp_path / "q.csv", videos), load_model(checkpoints())
    weight = model.network.model.language_model.embed_tokens.weight
    with torch.no_grad():
        one, other = ({i for ids in model.prompt_ids(q) for i in ids} for q in benchmark.questions)
        weight[sorted(other - one)] = torch.nan
    scores = run(model, benchmark, tmp_path / "one", read=read).scores[SMALL.name]
    assert (scores["answered"], scores["failed"]) == (1, 1)
    assert "the model's logits are not finite in float32" in next(iter(scores["reasons"]))
    weight.data.fill_(torch.nan)
    scores = run(model, benchmark, tmp_path / "all", read=read).scores[SMALL.name]
    assert (scores["answered"], scores["failed"]) == (0, 2)
    for row in read_rows(tmp_path / "all"):
        assert row["prediction"] is None and "letters" not in row
    assert "NaN" not in "".join((tmp_path / out / "predictions.jsonl").read_text() for out in ("one", "all"))


def test_rows_are_json_that_every_reader_takes():
    line = as_line({"seconds": {"encode": float("nan")}, "letters": [1.5, float("inf")]})
    assert json.loads(line, parse_constant=pytest.fail) == {"seconds": {"encode": None}, "letters": [1.5, None]}


def test_vcgbench_predictions(models, videos, tmp_path):
    for file in ("Generic_QA", "Temporal_QA", "Consistency_QA1", "Consistency_QA2"):
        (tmp_path / f"{file}.csv").write_text(f"video_name,question,question_id,answer\na,what of {file}?,a_0,x\n")
    scores = run(models(), load_benchmark("vcgbench", tmp_path, videos), tmp_path / "run").scores[SMALL.name]
    assert scores["answered"] == 4 and scores["rules"] == {}
    keys = [row["key"] for row in read_rows(tmp_path / "run")]
    assert keys == ["vcgbench/generic/0", "vcgbench/temporal/0", "vcgbench/consistency/0/1", "vcgbench/consistency/0/2"]


def test_bad_arguments(models, benchmark, tmp_path):
    with pytest.raises(SfllavaError, match="needed settings with names of their own"):
        run(models(), benchmark, tmp_path / "run", [SMALL, SMALL])
    for options in ({"read": "logits"}, {"decoders": 0}, {"decode_seconds": -1.0}):
        with pytest.raises(SfllavaError, match=r"needs questions with options|must be above 0"):
            run(models(), benchmark, tmp_path / "run", **options)
    with pytest.raises(SfllavaError, match="max_new_tokens must be at least 1"):
        evaluate_function(models(), benchmark, SMALL, tmp_path / "run", max_new_tokens=0)
    assert not (tmp_path / "run").exists()
    benchmark.videos_dir = None
    with pytest.raises(BenchmarkError, match="no folder of videos was given"):
        run(models(), benchmark, tmp_path / "run")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda p: p.write_bytes(b"{}\n" + p.read_bytes()),
            r"predictions\.jsonl, line 1: not a row of predictions: no",
        ),
        (lambda p: p.write_bytes(p.read_bytes() * 2), "line 13: a second row for question open/0"),
        (lambda p: (p.parent / "run.json").write_text("{"), r"run\.json: not the run\.json of a run"),
        (lambda p: (p.parent / "run.json").unlink(), "not a run folder of ours"),
    ],
)
def test_spoilt_run_folders(models, benchmark, tmp_path, spoil, message):
    file = run(models(), benchmark, tmp_path / "run").path / "predictions.jsonl"
    spoil(file)
    before = file.read_bytes()
    with pytest.raises(RunError, match=message):
        run(models(), benchmark, tmp_path / "run")
    assert file.read_bytes() == before


def twelve_videos(videos, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [f"{name}{i}" for i in range(4) for name in "abc"]
    for name in names:
        os.link(videos / f"{name[0]}.mp4", folder / f"{name}.mp4")
    return questions_csv(tmp_path / "q.csv", names), folder


def slowly(folder: Path) -> dict[str, str]:
    """An environment in which each video takes half a second more, so that there is a middle to be stopped in."""
    (folder / "slow").mkdir()
    (folder / "slow" / "decord.py").write_text(
        "import time\ndef VideoReader(*a, **k):\n    time.sleep(0.5)\n    raise RuntimeError('left to PyAV')\n"
    )
    return {**os.environ, "PYTHONPATH": str(folder / "slow")}


def command(checkpoint, csv, videos, out, *more):
    return [
        *(sys.executable, "-m", "sfllava.cli", "evaluate", "open", "--questions", str(csv), "--videos", str(videos)),
        *("--model", str(checkpoint), "--out", str(out), "--frames", "6", "4", "--max-new-tokens", "6"),
        *("--aggregation", str(SMALL.aggregation), "slowfast-slow_1frms_concat-fast_1x1", *more),
    ]


def test_an_interrupt_stops_it_with_a_word(checkpoints, videos, tmp_path):
    csv, folder = twelve_videos(videos, tmp_path)
    process = subprocess.Popen(
        command(checkpoints(), csv, folder, tmp_path / "run"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=slowly(tmp_path),
    )
    file = tmp_path / "run" / "predictions.jsonl"
    while process.poll() is None and not (file.exists() and file.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; the same command goes on from here" in err
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert "Traceback" not in err and all(s["answered"] + s["not_asked"] == 48 for s in scores.values())


def test_logging_is_left_as_it_was(models, benchmark, tmp_path):
    before = (logging.getLogger("sfllava").level, list(logging.getLogger("sfllava").handlers))
    run(models(), benchmark, tmp_path / "run")
    assert (logging.getLogger("sfllava").level, list(logging.getLogger("sfllava").handlers)) == before
