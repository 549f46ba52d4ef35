"""vLLM for real, on CPU in float32: every answer equals the packed engine's. `make test-vllm` runs this.

vLLM needs an environment of its own, so that in any other these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed here: make test-vllm", allow_module_level=True)

from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.cli import main
from sfllava.models.base import ContextError
from sfllava.models.engines.export import export_lm
from sfllava.models.engines.options import EngineOptions
from sfllava.models.engines.vllm_text import load_vllm_text
from sfllava.models.load import load_model
from sfllava.models.placement import TINY
from sfllava.models.text import VideoLMText, load_text_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.runs.evaluate import evaluate
from sfllava.runs.run_folder import RunError, read_rows
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

# vLLM has CPU kernels for some widths of a head only
TEXT = {"hidden_size": 128}
SETTINGS = [
    Setting(16, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4"),
    Setting(16, "slowfast-slow_4frms_spatial_1d_max_pool-fast_2x2"),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A random checkpoint in the original layout, with the packed engine and with vLLM."""
    folder = tmp_path_factory.mktemp("engines")
    checkpoint = write_random_checkpoint(folder / "random", "original", text=TEXT)
    return load_model(checkpoint), load_model(checkpoint, engine=EngineOptions("vllm", folder / "lm"))


def answers(rows):
    """What the rows say, by question and setting, each once."""
    found = {(row["key"], row["setting"]): row for row in rows}
    assert len(found) == len(rows)
    return {key: [row[name] for name in ("prediction", "token_ids", "error")] for key, row in found.items()}


def test_clips(pair, shared, tmp_path):
    """Two settings with a common prefix, open questions and choices; rows and run.json tell the engine."""
    packed, vllm = pair
    assert not any(".layers." in name for name in vllm.language_model.network.state_dict() if "language_model" in name)
    for form in ("open", "choice"):
        benchmark = load_benchmark(form, shared / "clips" / f"clips_{form}.csv", shared / "clips")
        runs = {}
        for name, model in (("packed", packed), ("vllm", vllm)):
            evaluate(model, benchmark, SETTINGS, tmp_path / form / name, max_new_tokens=12, progress=False)
            runs[name] = list(read_rows(tmp_path / form / name))
        assert answers(runs["vllm"]) == answers(runs["packed"])
        assert len(runs["vllm"]) == 2 * len(benchmark.questions) and not any(row["error"] for row in runs["vllm"])
        assert len({tuple(row["token_ids"]) for row in runs["vllm"]}) > 3, "the answers hardly differ"
        assert all(row["engine"].startswith("vllm 0.") for row in runs["vllm"])
        assert not any("engine" in row for row in runs["packed"])
        # the tokens of the second setting that begin as those of the first do were in vLLM's cache, in whole blocks
        reused = {row["reused_tokens"] for row in runs["vllm"] if row["setting"] == SETTINGS[1].name}
        assert min(reused) > 300, reused
    facts = json.loads((tmp_path / "open" / "vllm" / "run.json").read_text())
    assert facts["identity"]["model"]["engine"] == {"name": "vllm"} and facts["sessions"][0]["engine"].startswith(
        "vllm"
    )
    with pytest.raises(RunError, match=r"model\.engine was null, is .*vllm"):
        benchmark = load_benchmark("open", shared / "clips" / "clips_open.csv", shared / "clips")
        evaluate(vllm, benchmark, SETTINGS, tmp_path / "open" / "packed", max_new_tokens=12, progress=False)


def test_letters_by_logits(pair):
    tokens = torch.randn(300, 128, generator=torch.Generator().manual_seed(1))
    questions = [Question(f"which of these is {w}?", options=("red", "green", "blue"), task="choice") for w in "abcd"]
    ours, theirs = (model.answer(tokens, questions, answer_mode="logits") for model in pair)
    assert [answer.text for answer in ours] == [answer.text for answer in theirs]
    for one, other in zip(ours, theirs):
        assert one.letters == pytest.approx(other.letters, abs=1e-4) and sum(other.letters.values()) == pytest.approx(1)


def test_many_videos_in_one_batch_and_the_stream(pair):
    _, vllm = pair
    noise = torch.Generator().manual_seed(2)
    videos = [(torch.randn(200 + 10 * i, 128, generator=noise), ["what is it?", f"how many {i}?"]) for i in range(5)]
    ours, theirs = (
        [[a.token_ids for a in asked] for asked in model.answer_batch(videos, max_new_tokens=10)] for model in pair
    )
    assert ours == theirs
    streams = [list(model.stream(videos[0][0], "what is it?", max_new_tokens=10)) for model in pair]
    assert streams[0] == streams[1] == list(ours[0][0])
    with pytest.raises(SfllavaError, match=r"share_prefix=False.*needs the packed engine"):
        vllm.answer(videos[0][0], ["what?"], share_prefix=False)
    with pytest.raises(SfllavaError, match=r"attention_modules.*packed engine"):
        vllm.language_model.attention_modules  # noqa: B018


def test_the_limit_and_logits_that_are_not_finite(pair):
    """What cannot be answered has its reason, and the question next to it is answered."""
    packed, vllm = pair
    assert (packed.info.context, vllm.info.context) == (8192, 4096)
    short, long = torch.zeros(100, 128), torch.randn(3960, 128, generator=torch.Generator().manual_seed(3))
    room = 4096 - len(long) - sum(map(len, vllm.info.prompt_ids(Question("what?"))))
    assert 0 < room < 60
    (near,), (far,) = vllm.answer_batch([(short, ["what?"]), (long, ["what?"])], max_new_tokens=room + 20)
    whole = packed.answer(long, ["what?"], max_new_tokens=room + 20)[0]
    assert (
        near.error is None and near.token_ids == packed.answer(short, ["what?"], max_new_tokens=room + 20)[0].token_ids
    )
    if len(whole.token_ids) > room:
        assert far.error and "past position 4,096" in far.error and "packed engine" in far.error
    else:
        assert far.token_ids == whole.token_ids
    assert vllm.answer(long, ["what?"], max_new_tokens=room)[0].token_ids == whole.token_ids[:room]
    with pytest.raises(ContextError, match=r"do not fit the context of 4096.*packed engine, which takes 8192"):
        vllm.answer(torch.zeros(4096, 128), ["what?"])
    broken = torch.full((100, 128), float("nan"))
    (good,), (bad,) = vllm.answer_batch([(short, ["what?"]), (broken, ["what?"])], max_new_tokens=4)
    assert good.error is None and bad.error and "logits are not finite" in bad.error
    # vLLM uses the memory of the broken prompt again
    for n in (1, 40, 100):
        ours, theirs = (model.answer(short[:n], ["what?"], max_new_tokens=4)[0] for model in pair)
        assert ours.token_ids == theirs.token_ids, n


def test_shapesqa_with_a_kill_and_a_resume(tmp_path):
    folder = write_shapesqa(tmp_path / "shapes", 16, 1)
    where = {"questions": folder / "shapesqa_choice.csv", "videos": folder / "videos"}
    setting = Setting(32, "slowfast-slow_8frms_spatial_1d_max_pool-fast_4x4")
    out = {name: tmp_path / name for name in ("packed", "vllm")}
    benchmark = load_benchmark("choice", **where)
    ours = evaluate(load_model("tiny"), benchmark, setting, out["packed"], max_new_tokens=6, progress=False)
    command = [sys.executable, "-m", "sfllava.cli", "evaluate", "choice", "--model", "tiny", "--engine", "vllm"]
    command += ["--frames", "32", "--aggregation", str(setting.aggregation), "--max-new-tokens", "6"]
    command += ["--questions", where["questions"], "--videos", where["videos"], "--out", out["vllm"]]
    environment = os.environ | {"HOME": str(tmp_path), "SFLLAVA_COLD": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(list(map(str, command)), env=environment)
    rows = out["vllm"] / "predictions.jsonl"
    limit = time.monotonic() + 300
    while process.poll() is None and (not rows.exists() or not rows.read_bytes()) and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    before = rows.read_bytes()
    assert 0 < before.count(b"\n") < len(benchmark.questions)
    subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True)
    assert rows.read_bytes().startswith(before)
    assert answers(list(read_rows(out["vllm"]))) == answers(list(read_rows(out["packed"])))
    theirs = json.loads((out["vllm"] / "scores.json").read_text())
    assert theirs == json.loads((out["packed"] / "scores.json").read_text()) and ours.scores
    # the language model was exported once, into the cache
    assert len(list((tmp_path / ".cache" / "sfllava" / "language-models").iterdir())) == 2  # with its lock


def test_a_judge_in_vllm_replies_as_one_in_transformers(pair, tmp_path):
    texts = [("Reply with yes or no.", f"is the {thing} on the river?") for thing in ("raft", "woman", "panda")]
    ours, theirs = (VideoLMText(model).replies(texts, 8) for model in pair)
    assert ours == theirs and VideoLMText(pair[1]).about["engine"] == {"name": "vllm"}
    folder = export_lm(TINY, tmp_path / "lm").folder
    asks = [("is it right ?", f"how many {shape} are there ?") for shape in ("red circles", "squares", "blue ones")]
    ours = load_text_model(folder).replies(asks, 8)
    judge = load_vllm_text(folder, "auto", EngineOptions("vllm"))
    assert judge.replies(asks, 8) == ours and all(isinstance(reply, tuple) for reply in ours)
    assert judge.about["engine"] == {"name": "vllm"}
    assert isinstance(judge.replies([("right ?", "red " * 5000)], 8)[0], SfllavaError)


def test_a_language_model_of_ones_own_and_a_folder_that_does_not_fit(pair, tmp_path):
    """Weights of another form are another model: other answers, another fingerprint."""
    packed, vllm = pair
    shutil.copytree(vllm_folder(vllm), tmp_path / "changed")
    (tmp_path / "changed" / "sfllava_export.json").unlink()
    weights = load_file(tmp_path / "changed" / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].flip(0).contiguous()
    save_file(weights, tmp_path / "changed" / "model.safetensors", metadata={"format": "pt"})
    other = load_model(packed.info.path, engine=EngineOptions("vllm", tmp_path / "changed"))
    tokens = torch.randn(200, 128, generator=torch.Generator().manual_seed(4))
    assert other.answer(tokens, ["what?"], max_new_tokens=6) != vllm.answer(tokens, ["what?"], max_new_tokens=6)
    assert other.info.fingerprint != vllm.info.fingerprint == packed.info.fingerprint
    with pytest.raises(SfllavaError, match=r"needed a language model with hidden_size 64.* got 128"):
        small = write_random_checkpoint(tmp_path / "small", "original")
        load_model(small, engine=EngineOptions("vllm", tmp_path / "changed"))


def vllm_folder(model):
    return model.info.path.parent / "lm"


def test_errors_of_vllm_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint = str(write_random_checkpoint(tmp_path / "narrow", text={"hidden_size": 128}))
    ask = ["ask", str(tmp_path / "none.mp4"), "what?", "--model", checkpoint, "--engine", "vllm"]
    assert main([*ask, "--vllm", "quantization=nothing"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sfllava:")]
    assert len(lines) == 1 and "vLLM cannot start" in lines[0], lines
    with pytest.raises(SfllavaError, match=r"vLLM cannot start: .*head_dim=16"):
        load_model(write_random_checkpoint(tmp_path / "heads"), engine="vllm")
