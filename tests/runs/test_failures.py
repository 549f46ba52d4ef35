from __future__ import annotations

import errno
import json
import os
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from fault_table import record
from small_runs import SETTINGS, SMALL, Own, command, log_of, plain, questions_csv, run, twelve_videos

from sfllava import cli
from sfllava.benchmarks import load_benchmark
from sfllava.models.language_model import LanguageModel
from sfllava.models.load import load_model
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs import worker
from sfllava.runs.failures import Outcome, Streak, outcome_of_error
from sfllava.runs.run_folder import RunError, read_rows
from sfllava.settings import Setting
from sfllava.types import SfllavaError

pytestmark = pytest.mark.slow


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
    encode, tries = TransformersVideoLM.encode, []

    def flaky(self, frames):
        tries.append(1)
        if len(tries) in fails:
            raise RuntimeError("CUDA error:\n  an illegal memory access")
        return encode(self, frames)

    monkeypatch.setattr(TransformersVideoLM, "encode", flaky)
    scores = run(models(), benchmark, tmp_path / "run").scores[SMALL.name]
    assert (scores["answered"], scores["failed"]) == (answered, 12 - answered)
    assert scores["reasons"] == ({"RuntimeError: CUDA error: an illegal memory access": 4} if answered < 12 else {})


def broken_from(monkeypatch, call: int, message="CUDA error: device-side assert triggered at 0x7f%x"):
    """From this call on the model raises, as a GPU does after an assertion on the device."""
    encode, calls = TransformersVideoLM.encode, []

    def broken(self, frames):
        calls.append(1)
        if len(calls) >= call:
            raise RuntimeError(message % len(calls))
        return encode(self, frames)

    monkeypatch.setattr(TransformersVideoLM, "encode", broken)
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
        return outcome_of_error(video, [row(video, str(error), setting)], error, setting)

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


def test_memory_that_is_too_small_for_a_group(checkpoints, benchmark, tmp_path, monkeypatch, caplog):
    """Three videos do not fit together, nor four questions: two do, and nothing is lost."""
    model, forward, packs = load_model(checkpoints()), LanguageModel.forward, []

    def watched(self, embeds, **options):
        packs.append(embeds.shape[1] if options.get("attention_mask") is not None else 0)
        return forward(self, embeds, **options)

    def small(self, embeds, **options):
        if len(embeds) > 1 or (options.get("attention_mask") is not None and embeds.shape[1] > 0.6 * max(packs)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, embeds, **options)

    monkeypatch.setattr(LanguageModel, "forward", watched)
    run(model, benchmark, tmp_path / "whole", SETTINGS)

    monkeypatch.setattr(LanguageModel, "forward", small)
    run(model, benchmark, tmp_path / "parts", SETTINGS)
    assert plain(read_rows(tmp_path / "parts")) == plain(read_rows(tmp_path / "whole"))
    assert "going on with 2 questions at a time" in caplog.text and "CUDA out of memory" in log_of(tmp_path / "parts")
    told = "error raised in place of CUDA's; answered in smaller groups, rows as with enough memory"
    record("out of memory: groups of questions too large", 1, 1, 0, told)


class Room:
    """A device with room for the patch grids of so many videos."""

    def __init__(self, monkeypatch, most):
        self.encoded, self.decoded, self.grids = [], [], []
        encode, decode = TransformersVideoLM.encode, worker.VideoWorker._decode

        def limited(model, frames):
            self.encoded.append(len(frames))
            self.grids = [grid for grid in self.grids if grid() is not None]
            if len(self.grids) >= most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            grid = encode(model, frames)
            self.grids.append(weakref.ref(grid))
            return grid

        def counted(video_worker, job, *decoder):
            self.decoded.append(job.video)
            return decode(video_worker, job, *decoder)

        monkeypatch.setattr(TransformersVideoLM, "encode", limited)
        monkeypatch.setattr(worker.VideoWorker, "_decode", counted)


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
    room, answer, groups = Room(monkeypatch, 99), TransformersVideoLM.answer_batch, []

    def small(self, films, **options):
        groups.append(len(films))
        if len(films) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return answer(self, films, **options)

    monkeypatch.setattr(TransformersVideoLM, "answer_batch", small)
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
    forward = LanguageModel.forward

    def small(self, embeds, **options):
        if embeds.shape[1] > 100 and options.get("attention_mask") is None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, embeds, **options)

    monkeypatch.setattr(LanguageModel, "forward", small)
    scores = run(models(), benchmark, tmp_path / "run", [SMALL, SETTINGS[1]]).scores
    assert (
        scores[SMALL.name]["failed"] == 12
        and scores[SETTINGS[1].name]["answered"] == 12 - scores[SETTINGS[1].name]["failed"]
    )
    assert "CUDA out of memory" in next(iter(scores[SMALL.name]["reasons"]))
    record(
        "out of memory: one prompt too large", 12, 12, 0, "questions failed with the reason; the others were answered"
    )


def test_a_hanging_decoder_gives_way_to_the_other(models, benchmark, tmp_path, monkeypatch):
    from small_runs import hanging_decord

    hanging_decord(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    scores = run(models(), benchmark, tmp_path / "run", decode_seconds=2).scores[SMALL.name]
    assert scores["answered"] == 12  # PyAV at the second try
    assert "decoding took longer than 2 s" in log_of(tmp_path / "run")
