"""`sfllava plan`."""

from __future__ import annotations

import json
import shutil

import pytest
from devices import GPU

from sfllava.cli import main


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
