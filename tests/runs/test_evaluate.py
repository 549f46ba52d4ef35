from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_runs import HEADER, SETTINGS, SMALL, Own, command, log_of, plain, questions_csv, run, slowly, twelve_videos

from sfllava.aggregators.image_grid import tile
from sfllava.aggregators.slowfast import SlowFast
from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.files import as_line
from sfllava.models.base import ContextError
from sfllava.models.engines.options import EngineInfo
from sfllava.models.language_model import LanguageModel
from sfllava.models.load import load_model
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.evaluate import evaluate as evaluate_function
from sfllava.runs.run_folder import RunError, read_rows
from sfllava.sampler.sampling import sample_indices
from sfllava.settings import Setting
from sfllava.types import SfllavaError


def test_a_run_folder(models, benchmark, tmp_path):
    result = run(models(), benchmark, tmp_path / "run", SETTINGS)
    rows = list(read_rows(tmp_path / "run"))
    assert len(rows) == 12 * 3 == len({(r["key"], r["setting"]) for r in rows})
    for row in rows:
        assert row["error"] is None and 1 <= len(row["token_ids"]) <= 6 and row["frames"] in (4, 6)
        assert row["visual_tokens"] == next(s for s in SETTINGS if s.name == row["setting"]).token_count()
        assert row["seconds"]["answer"] > 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    first = {"name": SMALL.name, "frames": 6, "aggregation": str(SMALL.aggregation), "budget": 312}
    assert about["identity"]["settings"][0] == first and about["identity"]["questions"] == 12
    assert about["sessions"][0]["questions_sha256"] == benchmark.fingerprint
    assert about["identity"]["model"]["sha256_sampled"] == models().info.fingerprint
    assert {"torch", "transformers", "python"} <= about["sessions"][0]["versions"].keys()
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores == result.scores and scores[SMALL.name]["questions"] == 12
    assert "ended" in (tmp_path / "run" / "log.txt").read_text()


def test_answers_are_those_of_one_question_at_a_time(models, benchmark, tmp_path):
    from sfllava.sampler.reading import read_video

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
    encode = TransformersVideoLM.encode
    monkeypatch.setattr(
        TransformersVideoLM, "encode", lambda self, frames: calls.append(len(frames)) or encode(self, frames)
    )
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


@dataclass
class Tiles(Own):
    """Frames side by side, `columns` in an image; not frozen, so that it has no hash."""

    columns: int

    def make_images(self, frames):
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


def test_videos_with_few_questions_are_answered_together(models, videos, tmp_path, monkeypatch):
    """Of equal length and not (b has one frame), with settings that share a front, and one that tiles frames."""
    settings = [*SETTINGS, Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_1x1"), Setting(6, "image_grid-2x3")]
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", each=1), videos)
    forward, steps = LanguageModel.forward, []

    def counted(self, embeds, **options):
        steps.append(embeds.shape[:2])
        return forward(self, embeds, **options)

    monkeypatch.setattr(LanguageModel, "forward", counted)
    run(models(), benchmark, tmp_path / "together", settings)
    together = len(steps)
    assert (3, 1) in steps, "no step said a token for three videos"
    steps.clear()
    monkeypatch.setattr(models().info, "engine", EngineInfo(batch_questions=1))
    run(models(), benchmark, tmp_path / "apart", settings)
    assert plain(read_rows(tmp_path / "together")) == plain(read_rows(tmp_path / "apart"))
    assert together < 0.6 * len(steps)


def test_one_question_a_video_is_answered_twelve_at_a_time(models, videos, tmp_path, monkeypatch):
    for i in range(30):
        os.link(videos / "a.mp4", tmp_path / f"v{i}.mp4")
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", [f"v{i}" for i in range(30)], 1), tmp_path)
    answer, sizes = TransformersVideoLM.answer_batch, []
    spy = lambda self, films, **options: sizes.append(len(films)) or answer(self, films, **options)  # noqa: E731
    monkeypatch.setattr(TransformersVideoLM, "answer_batch", spy)
    run(models(), benchmark, tmp_path / "run")
    assert sizes == [12, 12, 6] and len(list(read_rows(tmp_path / "run"))) == 30


def test_a_damaged_video_is_noted_in_its_rows(models, clip, tmp_path):
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", ["half"]), tmp_path)
    run(models(), benchmark, tmp_path / "run")
    assert all("of 376 declared frames" in row["damage"] for row in read_rows(tmp_path / "run"))


def test_tokens_that_do_not_fit_are_refused_before_any_compute(models, benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(TransformersVideoLM, "encode", lambda *a: pytest.fail("computed"))
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
    run(models(), benchmark, tmp_path / "logits", answer_mode="logits")
    for row in read_rows(tmp_path / "logits"):
        assert set(row["letters"]) == set("ABC") and row["prediction"] == max(row["letters"], key=row["letters"].get)


@pytest.mark.parametrize("answer_mode", ["generate", "logits"])
def test_logits_that_are_not_finite_are_failed_rows(checkpoints, videos, tmp_path, answer_mode):
    """As where half precision overflows: at one word of one question, and then everywhere."""
    (tmp_path / "q.csv").write_text("video_name,question,answer,a0,a1\na,what?,y,x,y\na,whose animals?,x,x,y\n")
    benchmark, model = load_benchmark("choice", tmp_path / "q.csv", videos), load_model(checkpoints())
    weight = model.language_model.network.model.language_model.embed_tokens.weight
    with torch.no_grad():
        one, other = ({i for ids in model.info.prompt_ids(q) for i in ids} for q in benchmark.questions)
        weight[sorted(other - one)] = torch.nan
    scores = run(model, benchmark, tmp_path / "one", answer_mode=answer_mode).scores[SMALL.name]
    assert (scores["answered"], scores["failed"]) == (1, 1)
    assert "the model's logits are not finite in float32" in next(iter(scores["reasons"]))
    weight.data.fill_(torch.nan)
    scores = run(model, benchmark, tmp_path / "all", answer_mode=answer_mode).scores[SMALL.name]
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
    with pytest.raises(SfllavaError, match="needed one or more settings with different names"):
        run(models(), benchmark, tmp_path / "run", [SMALL, SMALL])
    for options in ({"answer_mode": "logits"}, {"decoders": 0}, {"decode_seconds": -1.0}):
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
        (lambda p: (p.parent / "run.json").unlink(), "not a run folder of sfllava"),
    ],
)
def test_spoilt_run_folders(models, benchmark, tmp_path, spoil, message):
    file = run(models(), benchmark, tmp_path / "run").path / "predictions.jsonl"
    spoil(file)
    before = file.read_bytes()
    with pytest.raises(RunError, match=message):
        run(models(), benchmark, tmp_path / "run")
    assert file.read_bytes() == before


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
    assert process.returncode == 130 and "stopped; run the same command again to continue" in err
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert "Traceback" not in err and all(s["answered"] + s["not_asked"] == 48 for s in scores.values())


def test_logging_is_left_as_it_was(models, benchmark, tmp_path):
    before = (logging.getLogger("sfllava").level, list(logging.getLogger("sfllava").handlers))
    run(models(), benchmark, tmp_path / "run")
    assert (logging.getLogger("sfllava").level, list(logging.getLogger("sfllava").handlers)) == before
