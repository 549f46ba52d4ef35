"""Runs with a language model in 4 or 8 bits, from the command line."""

from __future__ import annotations

import argparse
import json

import pytest
from devices import GPU
from shell import sfllava

from sfllava.analysis.differences import paired_differences
from sfllava.analysis.loading import load_results
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.cli import main, parsed
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.session import Session
from sfllava.models.load import load_model
from sfllava.published.plan import ModelChoice
from sfllava.published.run import load_choice
from sfllava.runs import ray_runner
from sfllava.runs.run_folder import read_rows
from sfllava.settings import Setting
from sfllava.types import Question

pytest.importorskip("bitsandbytes")
SMALL = ("--frames", "16", "--aggregation", "slowfast-slow_4frms_concat-fast_2x2", "--max-new-tokens", "8")
FEW = ("--limit", "6", "--decoders", "1")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Two videos of ShapesQA."""
    return write_shapesqa(tmp_path_factory.mktemp("shapes"), videos=2)


def evaluate(shapes, out, *more) -> int:
    return main(
        ["evaluate", "shapesqa", "--root", str(shapes), "--model", "tiny", "--out", str(out), *SMALL, *FEW, *more]
    )


def test_a_run_records_how_its_model_was_quantised(shapes, tmp_path, capsys):
    runs = {name: tmp_path / name for name in ("full", "nf4")}
    assert evaluate(shapes, runs["full"]) == 0
    # one in a process of its own, as a user starts it
    made = sfllava("evaluate", "shapesqa", "--root", shapes, "--model", "tiny", "--out", runs["nf4"], *SMALL, *FEW, "--quantize", "nf4")  # fmt: skip
    assert made.returncode == 0 and "warning" not in made.stderr.lower() and "kernels" not in made.stderr
    models = {name: json.loads((run / "run.json").read_text())["identity"]["model"] for name, run in runs.items()}
    assert [each.get("quantize") for each in models.values()] == [None, "nf4"]
    assert "quantize" not in models["full"], "runs of earlier versions are resumed"
    assert len({each["sha256_sampled"] for each in models.values()}) == 1
    sessions = json.loads((runs["nf4"] / "run.json").read_text())["sessions"]
    assert sessions[0]["versions"]["bitsandbytes"]
    # a run is resumed with the same, and with nothing else
    before = list(read_rows(runs["nf4"]))
    capsys.readouterr()
    for more, message in (
        ((), '"nf4", is null'),
        (("--quantize", "int8"), 'quantize was "nf4", is "int8"'),
    ):
        assert evaluate(shapes, runs["nf4"], *more) == 1
        assert message in capsys.readouterr().err
    assert evaluate(shapes, runs["full"], "--quantize", "nf4") == 1
    assert 'model.quantize was null, is "nf4"' in capsys.readouterr().err
    assert evaluate(shapes, runs["nf4"], "--quantize", "nf4") == 0
    assert list(read_rows(runs["nf4"])) == before
    # accuracies are compared on the same questions
    gaps = paired_differences(load_results(list(runs.values())))
    assert list(gaps["questions"]) == [len(before)] == [6] and abs(gaps["points"][0]) <= 50


def test_the_option_reaches_every_model(shapes, tmp_path, capsys, monkeypatch):
    video = next((shapes / "videos").glob("*.mp4"))
    ask = ["ask", str(video), "which digit is shown?", "--model", "tiny", *SMALL]
    assert main([*ask, "--json", "--quantize", "nf4"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"]
    seen = {}
    monkeypatch.setattr(ray_runner, "RayRunner", lambda *a, **options: seen.update(options))
    arguments = argparse.Namespace(
        model="tiny", workers=2, ray=None, gpus_per_worker=None, device="cpu", dtype="auto", device_map=None,
        vision_tower=None, family=None, context=None, positions="time", timestamps=False, quantize="int8", engine="packed",
        vllm=[],
    )  # fmt: skip
    parsed.open_runner(arguments)
    assert seen["quantize"] == "int8"
    monkeypatch.setenv("SFLLAVA_MODEL", "7b")
    roofline = str(GPU.save(tmp_path / "gpu.json"))
    assert main(["plan", "activitynet", "--roofline", roofline, "--quantize", "nf4"]) == 0
    assert "4.2 GiB of weights (language model in nf4)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*ask, "--quantize", "q4"])
    assert "invalid choice: 'q4'" in capsys.readouterr().err


def test_the_code_of_a_reply_loads_the_same_model(shapes):
    model = load_model("tiny", quantize="nf4")
    session = Session(model, FeatureCache(model))
    video = str(next((shapes / "videos").glob("*.mp4")))
    list(session.ask(video, Setting(4, "slowfast-slow_1frms_concat-fast_1x1"), Question("which digit is shown?"), 4))
    assert "quantize='nf4')\n" in session.cell(session.replies[-1])


def test_a_published_experiment(checkpoints, capsys):
    choice = ModelChoice(str(checkpoints()), 2.0, 8192)
    assert load_choice(choice, device="cpu", quantize="int8").info.quantize == "int8"
    with pytest.raises(SystemExit):
        main(["run", "--config", "none.yaml", "--quantize", "q8"])
    assert "argument --quantize: invalid choice: 'q8'" in capsys.readouterr().err
