"""`sfllava doctor`: what it finds, and what it must not tell."""

from __future__ import annotations

import json
import platform
import shutil
from collections import namedtuple

import pytest
import torch
from shell import sfllava

from sfllava.cli import main
from sfllava.cli.diagnosis import decoding, machine, packages
from sfllava.cli.diagnosis.finding import Finding, without_private


def states(out):
    found = json.loads(out)["sections"]
    return {one["name"]: one for findings in found.values() for one in findings}


def test_an_installation_that_works(tmp_path):
    home = tmp_path / "home" / "ada-lovelace"
    (home / "model").mkdir(parents=True)
    (home / "model/config.json").write_text("{}")
    private = {
        "HOME": str(home), "USER": "ada-lovelace", "LOGNAME": "ada-lovelace", "OPENAI_API_KEY": "sk-abcdef123456",
        "OPENAI_BASE_URL": "https://judge.example.org/v1", "HF_TOKEN": "hf_abcdef123456", "HF_HOME": str(home / "hf"),
        "SFLLAVA_MODEL": str(home / "model"), "SFLLAVA_MODLE": "tiny",
    }  # fmt: skip
    out = sfllava("doctor", cwd=home, **private)
    assert out.returncode == 0, out.stdout + out.stderr
    assert all(text not in out.stdout for text in (str(tmp_path), "lovelace", "abcdef123456", "judge.example.org"))
    assert [line for line in out.stdout.splitlines() if line and line[0] != " "][:7] == [
        "versions", "devices", "decoders", "disk", "keys", "extras", "variables"
    ]  # fmt: skip
    assert max(map(len, out.stdout.splitlines())) <= 100
    found = states(sfllava("doctor", "--json", cwd=home, **private).stdout)
    assert found["torch"]["text"] == torch.__version__ and platform.python_version() in found["Python"]["text"]
    for decoder in ("decord", "pyav"):
        assert found[decoder]["state"] == "ok" and "H.264 and VP9" in found[decoder]["text"], found[decoder]
    assert found["OPENAI_API_KEY"]["text"].startswith("set; ") and found["WANDB_API_KEY"]["text"].startswith("not set")
    assert found["hub token"]["state"] == "ok" and found["SFLLAVA_MODEL"]["text"] == "a folder with config.json"
    assert "did you mean 'SFLLAVA_MODEL'?" in found["SFLLAVA_MODLE"]["text"]
    assert set(packages.PURPOSES) <= set(found) and "GiB" in found["this folder"]["text"]


@pytest.fixture
def quick(monkeypatch):
    """Decoders take a second, and these tests are not about them."""
    monkeypatch.setattr(decoding, "CLIPS", {})


def test_a_required_package_that_is_too_old_is_broken_and_an_optional_one_is_missing(quick, monkeypatch, capsys):
    real = packages.version

    def version(name):
        if name == "bitsandbytes":
            raise packages.PackageNotFoundError(name)
        return "0.1" if name == "transformers" else real(name)

    monkeypatch.setattr(packages, "version", version)
    assert main(["doctor", "--json"]) == 1
    out = capsys.readouterr().out
    found = states(out)
    assert json.loads(out)["ok"] is False
    assert found["transformers"]["state"] == "broken" and "version 0.1, needed <6,>=5" in found["transformers"]["text"]
    assert found["quantize"]["state"] == "missing"
    assert found["quantize"]["text"].endswith("missing: bitsandbytes; pip install 'sfllava[quantize]'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU")
def test_a_gpu_that_torch_cannot_use_and_a_full_disk_are_warnings(quick, monkeypatch, tmp_path, capsys):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA Some GPU, 24564 MiB, 999.9'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40 - 2**20, 2**20))
    assert main(["doctor", "--json"]) == 0
    found = states(capsys.readouterr().out)
    assert found["GPU"]["state"] == "warning" and "torch cannot use it" in found["GPU"]["text"]
    assert found["this folder"]["state"] == "warning" and "1.0 MiB of 1,024.0 GiB free" in found["this folder"]["text"]


def test_a_check_that_fails_is_a_finding(quick, monkeypatch, capsys):
    def fail():
        raise OSError("/home/ada/lib/libav.so: broken")

    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: fail())
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "cannot be checked: OSError: .../libav.so: broken" in out and "1 required thing" in out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot load /opt/ada/lib/libav.so.58: no such file", "cannot load .../libav.so.58: no such file"),
        (r"DLL of C:\Users\ada\av.dll failed", "DLL of .../av.dll failed"),
        ("~/.cache/sfllava/x is full", ".../x is full"),
        ("/home/jane doe/data/clip.mp4: cannot read", ".../clip.mp4: cannot read"),
        ("file:///home/jane/secret/clip.mp4 of https://me:pw@lab/x", ".../clip.mp4 of https://lab/x"),
        (
            "see https://pytorch.org/get-started and 3 GB/s of OWNER/NAME",
            "see https://pytorch.org/get-started and 3 GB/s of OWNER/NAME",
        ),
    ],
)
def test_paths_are_left_out(text, shown):
    assert without_private(Finding("x", text)).text == shown
