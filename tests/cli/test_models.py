"""`sfllava models`, and `ask` and `evaluate` from the command line with each family."""

from __future__ import annotations

import json

import pytest
from shell import sfllava

from sfllava.cli import main
from sfllava.models.known import KNOWN
from sfllava.models.tiny.random_backbones import write_random_backbone
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.run_folder import read_rows
from sfllava.sampler.sampling import sample_indices


def test_the_table_lists_every_published_checkpoint(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(KNOWN) + 1]] == list(KNOWN)
    assert "27x27" in next(line for line in lines if line.startswith("onevision-7b"))


def test_folders_and_names(tmp_path, checkpoints, capsys):
    folder = write_random_backbone(tmp_path, "qwen3_vl")
    names = [str(folder), "tiny", "llava-hf/llava-1.5-7b-hf", str(checkpoints("chatml", "original"))]
    assert main(["models", "--json", *names]) == 0
    qwen, tiny, llava, original = map(json.loads, capsys.readouterr().out.splitlines())
    assert (qwen["family"], qwen["layout"], qwen["grid"]) == ("qwen3_vl", "transformers", [12, 12])
    assert qwen["files"] == {"model.safetensors": (folder / "model.safetensors").stat().st_size}
    assert (qwen["default_tokens"], qwen["native_tokens_of_32_frames"]) == (1520, 16 * 144)
    assert tiny["prompt_format"] == "tiny" and (llava["files"], llava["grid"]) == ({}, [24, 24])
    assert (original["layout"], original["prompt_format"]) == ("original", "chatml")
    # the weights are never read
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert main(["models", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "384x384 pixels, 12x12 patches" in out and "1 file, " in out


def test_what_is_wrong_is_said_and_the_others_are_shown(tmp_path, capsys):
    folder = write_random_backbone(tmp_path, "llava")
    (folder / "model.safetensors").unlink()
    assert main(["models", str(folder), "tiny", "nope"]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("tiny\n")
    first, second = shown.err.splitlines()
    assert "no weights; needed model.safetensors" in first
    assert "no model is called 'nope'; choose from 7b" in second


@pytest.mark.parametrize("backbone", ["llava_onevision", "qwen2_5_vl"])
def test_ask_from_the_command_line(tmp_path, videos, backbone):
    folder = write_random_backbone(tmp_path, backbone)
    common = ("ask", videos / "a.mp4", "what is it?", "how many?", "--model", folder, "--max-new-tokens", 5, "--json")
    said = json.loads(sfllava(*common, "--frames", 6, "--aggregation", "native").stdout)
    assert said["visual_tokens"] == {"llava_onevision": 6 * 196 + 1, "qwen2_5_vl": 3 * 144}[backbone]
    default = json.loads(sfllava(*common, "--frames", 12, "--timestamps", "--context", 30000).stdout)
    assert (
        default["visual_tokens"] == {"llava_onevision": 10 * 364 + 12 * 16, "qwen2_5_vl": 10 * 72 + 12 * 16}[backbone]
    )
    assert all(len(answer["token_ids"]) <= 5 for answer in said["answers"] + default["answers"])


@pytest.mark.parametrize("backbone", ["llava_next_video", "qwen3_vl"])
def test_a_sweep_encodes_each_frame_once_and_goes_on(tmp_path, videos, capsys, monkeypatch, backbone):
    folder, calls, encode = write_random_backbone(tmp_path / "model", backbone), [], TransformersVideoLM.encode
    monkeypatch.setattr(
        TransformersVideoLM, "encode", lambda self, frames: calls.append(len(frames)) or encode(self, frames)
    )
    (tmp_path / "q.csv").write_text("video_name,question,answer\na,what is it?,x\na,how many?,x\nb,where?,x\n")
    common = [
        "evaluate",
        "open",
        "--questions",
        str(tmp_path / "q.csv"),
        "--videos",
        str(videos),
        "--model",
        str(folder),
    ]
    common += ["--max-new-tokens", "4", "--out", str(tmp_path / "run"), "--decoders", "1"]
    slowfast = "slowfast-slow_2frms_spatial_1d_max_pool-fast_2x2"
    assert main([*common, "--frames", "6", "4", "--aggregation", slowfast]) == 0
    assert calls == [len(set(sample_indices(n, 6)) | set(sample_indices(n, 4))) for n in (20, 21)]
    rows = list(read_rows(tmp_path / "run"))
    assert len(rows) == 6 and not any(row.get("error") for row in rows)
    # native is one more setting of the same run
    assert main([*common, "--frames", "6", "4", "--aggregation", slowfast, "native"]) == 0
    assert [row for row in read_rows(tmp_path / "run") if "native" not in row["setting"]] == rows
    assert sum("native" in row["setting"] for row in read_rows(tmp_path / "run")) == 6
    # another rule for positions is another run
    changed = main([*common, "--frames", "6", "4", "--aggregation", slowfast, "native", "--positions", "consecutive"])
    assert changed == (1 if backbone == "qwen3_vl" else 0)
    if changed:
        assert "positions" in capsys.readouterr().err
