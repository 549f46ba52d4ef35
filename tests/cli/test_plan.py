"""`sfllava plan`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from devices import CPU, GPU

from sfllava.cli import main
from sfllava.planning.presets import preset_names


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_the_command_needs_the_config_alone(checkpoints, tmp_path, capsys, layout):
    whole, folder = checkpoints("vicuna", layout), tmp_path / "model"
    (folder / "clip").mkdir(parents=True)
    for file in ("config.json", "clip/config.json"):
        if (whole / file).exists():
            shutil.copy(whole / file, folder / file)
    roofline = GPU.save(tmp_path / "gpu.json")
    common = ["plan", "nextqa", "--roofline", str(roofline), "--frames", "8", "12", "--json", "--model"]
    assert main([*common, str(folder)]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*common, str(whole)]) == 0
    tokenized = json.loads(capsys.readouterr().out)
    assert alone["parameters"] == tokenized["parameters"] and len(alone["settings"]) == 2
    assert [s["visual_tokens"] for s in alone["settings"]] == [2880 + 16 * 8, 2880 + 16 * 12]
    assert [s["prompt_tokens"] for s in alone["settings"]] != [s["prompt_tokens"] for s in tokenized["settings"]]


def test_questions_are_those_of_the_file(tmp_path, capsys):
    rows = ["video_name,question,answer", *(f"v{i % 3},what is it {i}?,x" for i in range(10))]
    (tmp_path / "q.csv").write_text("\n".join(rows) + "\n")
    roofline = str(GPU.save(tmp_path / "gpu.json"))
    common = ["plan", "open", "--model", "7b", "--roofline", roofline]
    assert main([*common, "--questions", str(tmp_path / "q.csv")]) == 0
    assert "10 questions about 3 videos" in capsys.readouterr().out
    assert main([*common, "--questions", str(tmp_path / "q.csv"), "--limit", "2"]) == 0
    assert "2 questions about 2 videos" in capsys.readouterr().out
    assert main([*common, "--questions", "700", "--videos", "100"]) == 0
    assert "700 questions about 100 videos" in capsys.readouterr().out
    for options, wanted in (
        ([], "open: needed a question file, or how many questions"),
        (["--questions", "5", "--videos", "9"], "at least one a video"),
        (["--limit", "5"], "--limit chooses from a question file"),
        (["--questions", str(tmp_path / "q.csv"), "--videos", "9"], "not one of each"),
        (["--dtype", "float32"], "measured in float16, not in float32"),
        (["--questions", "9", "--videos", "9", "--new-tokens", "200"], "between 1 and max_new_tokens"),
        (["--measure", "x.json"], "pass one of them"),
    ):
        assert main([*common, *options]) == 1
        assert wanted in capsys.readouterr().err


def test_a_device_that_is_not_here(capsys, tmp_path):
    common = ["plan", "egoschema", "--model", "7b", "--new-tokens", "5"]
    assert main([*common, "--device", "h100"]) == 0
    out = capsys.readouterr().out
    assert "NVIDIA H100 SXM 80 GB, float16: the vendor's published peak figures, not measured" in out
    assert "https://www.nvidia.com/en-us/data-center/h100/" in out and "warning: seconds are estimates" in out
    assert main([*common, "--device", "presets", "--dtype", "bfloat16", "--frames", "50", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if " of 2 " in line] == preset_names()
    assert any("not measured" in line and "bfloat16" in line for line in lines)
    assert main([*common, "--device", "h101"]) == 1
    assert "no device is called 'h101' (did you mean" in capsys.readouterr().err
    assert main([*common, "--device", "h100", "--roofline", str(GPU.save(tmp_path / "gpu.json"))]) == 1
    assert "--device h100 plans with published figures, --roofline with measured ones" in capsys.readouterr().err


def test_without_a_gpu_other_devices_are_planned_for_too(capsys, monkeypatch):
    monkeypatch.setattr("sfllava.planning.roofline.measure", lambda *_: replace(CPU, free_bytes=2**30))
    common = ["plan", "egoschema", "--model", "7b"]
    assert main(common) == 1
    here, others = capsys.readouterr().out.split("\nOn other devices (estimates from published peak figures")
    assert "nothing fits" in here and all(f"\n{name} " in others for name in preset_names())
    assert main([*common, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["fits"] and found["presets"]["h200"]["fits"] and "not measured" in found["presets"]["l4"]["source"]
    assert main([*common, "--device", "cpu"]) == 1 and "other devices" not in capsys.readouterr().out
