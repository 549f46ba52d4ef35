"""Export of the language model, and the options of engines: all that needs no vLLM."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sfllava.cli import main
from sfllava.files import RunError
from sfllava.models.checkpoint import CheckpointError
from sfllava.models.engines.export import MANIFEST, export_lm, text_name
from sfllava.models.engines.options import EngineInfo, EngineOptions, spread
from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.types import SfllavaError


@pytest.mark.parametrize("layout", ["transformers", "original"])
@pytest.mark.parametrize("family", ["vicuna", "mistral", "chatml"])
def test_the_export_has_the_tensors_of_the_checkpoint_and_gives_its_logits(models, tmp_path, family, layout):
    model = models(family, layout)
    out = export_lm(model.info.path, tmp_path / "lm").folder
    own = model.language_model.network
    network = AutoModelForCausalLM.from_pretrained(out, local_files_only=True).eval()
    assert type(network).__name__ == ("MistralForCausalLM" if family == "mistral" else "LlamaForCausalLM")
    expected = {f"model.{name}": tensor for name, tensor in own.model.language_model.state_dict().items()}
    expected |= {f"lm_head.{name}": tensor for name, tensor in own.lm_head.state_dict().items()}
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    ids = torch.arange(5, 45)[None]
    with torch.inference_mode():
        logits = own.lm_head(own.model.language_model(input_ids=ids).last_hidden_state)
        assert torch.allclose(network(input_ids=ids).logits, logits, atol=1e-5)
    # RoPE is the checkpoint's own: the factor for long prompts belongs to the packed engine
    assert network.config.rope_parameters["rope_type"] == "default"


def split(folder, of_language_model):
    """Write the weights of a checkpoint as two files: the language model's, and all others."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"part-{1 if of_language_model(name) else 2}.safetensors" for name in weights}
    for file in set(where.values()):
        save_file({name: weights[name] for name in weights if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return weights


def test_a_file_that_holds_nothing_else_is_linked(tmp_path):
    folder = write_random_checkpoint(tmp_path / "original", "original")
    weights = split(folder, lambda name: name.startswith("model.layers."))
    export = export_lm(folder, tmp_path / "lm")
    links = [path for path in export.folder.iterdir() if path.is_symlink()]
    assert [link.resolve() for link in links] == [folder / "part-1.safetensors"] and export.linked == 1
    network = AutoModelForCausalLM.from_pretrained(export.folder, local_files_only=True)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    # under other names than the language model's own, nothing can be linked
    folder = write_random_checkpoint(tmp_path / "transformers")
    split(folder, lambda name: ".layers." in name)
    assert export_lm(folder, tmp_path / "copy").linked == 0


def test_a_complete_export_is_reused_and_a_damaged_one_is_refused(checkpoints, tmp_path):
    out = tmp_path / "lm"
    assert not export_lm(checkpoints(), out).reused
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert export_lm(checkpoints(), out).reused and (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(RunError, match="needed a new folder or a complete export"):
        export_lm(checkpoints("mistral"), out)
    (out / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(RunError, match="needed a new folder or a complete export"):
        export_lm(checkpoints(), out)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        export_lm(checkpoints(), tmp_path / "file")


def test_a_killed_export_leaves_nothing_that_counts_as_one(tmp_path):
    folder = write_random_checkpoint(tmp_path / "large", text={"hidden_size": 512, "num_hidden_layers": 12})
    process = subprocess.Popen(
        [sys.executable, "-m", "sfllava.cli", "export-lm", str(folder), "--out", str(tmp_path / "lm")], cwd=ROOT
    )
    while not list(tmp_path.glob(".lm.part-*")) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "lm").exists()
    assert not export_lm(folder, tmp_path / "lm").reused
    assert (tmp_path / "lm" / MANIFEST).is_file() and not list(tmp_path.glob(".lm.part-*"))


def test_language_models_that_vllm_cannot_run_exactly(backbone_folders, tmp_path):
    with pytest.raises(CheckpointError, match=r"M-RoPE.*packed engine"):
        export_lm(backbone_folders("qwen2_5_vl"), tmp_path / "lm")
    folder = write_random_checkpoint(tmp_path / "yarn")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="plain RoPE for vLLM, got 'linear'; use the packed engine"):
        export_lm(folder, tmp_path / "lm")
    assert not (tmp_path / "lm").exists()


def test_names_of_tensors_in_both_layouts():
    assert text_name("language_model.model.norm.weight", "transformers") == "model.norm.weight"
    assert text_name("model.language_model.norm.weight", "transformers") == "model.norm.weight"
    assert text_name("model.vision_tower.layers.0.weight", "transformers") is None
    assert text_name("model.vision_tower.vision_tower.weight", "original") is None
    assert text_name("lm_head.weight", "original") == "lm_head.weight"


def test_the_command(checkpoints, tmp_path, capsys):
    out = str(tmp_path / "lm")
    assert main(["export-lm", str(checkpoints()), "--out", out]) == 0
    assert "written" in capsys.readouterr().out
    assert main(["export-lm", str(checkpoints()), "--out", out]) == 0
    assert "was complete already" in capsys.readouterr().out
    assert main(["export-lm", str(tmp_path / "none"), "--out", out]) == 1
    assert "no such checkpoint folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tensor-parallel", "2"], "tensor_parallel is an option of the vllm engine"),
        (["--gpu-memory", "0.5"], "gpu_memory is an option of the vllm engine"),
        (["--vllm", "quantization=fp8"], "vllm is an option of the vllm engine"),
        (["--engine", "vllm", "--device-map", "auto"], "device_map is an option of the packed engine"),
        (["--engine", "vllm", "--device", "cuda:1"], "CUDA_VISIBLE_DEVICES"),
        (["--engine", "vllm", "--tensor-parallel", "0"], "tensor_parallel must be at least 1, got 0"),
        (["--engine", "vllm", "--gpu-memory", "80"], "gpu_memory must be a fraction from 0 to 1, got 80.0"),
        (["--engine", "vllm", "--vllm", "dtype=half"], "vLLM's dtype is set by the engine itself"),
        (["--engine", "vllm", "--vllm", "dtype"], "--vllm dtype: needed NAME=VALUE"),
    ],
)
def test_options_that_do_not_go_together(options, message, capsys):
    assert main(["ask", "none.mp4", "what?", "--model", "tiny", "--quiet", *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0], lines


def test_grounding_refuses_vllm_before_it_loads_a_model(tmp_path, capsys):
    files = ["--spans", "none.json", "--out", str(tmp_path / "out"), "--engine", "vllm"]
    assert main(["ground", "choice", "--model", "tiny", *files]) == 1
    assert "grounding needs the layers of the language model: use --engine packed" in capsys.readouterr().err


def test_vllm_that_is_missing_or_of_another_version(tmp_path, monkeypatch):
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(SfllavaError, match=r"the vllm engine is not installed; needed vLLM 0.32.*sfllava.vllm."):
            load_model("tiny", engine="vllm")
    # a package that says it is an old vLLM
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "vllm-0.9.1.dist-info").mkdir()
    (tmp_path / "vllm-0.9.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.9.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SfllavaError, match=r"needed vLLM 0.32 or later, below 0.33.*got 0.9.1$"):
        load_model("tiny", engine="vllm")


def test_another_engine_and_the_gpus_of_a_worker():
    with pytest.raises(SfllavaError, match="engine must be packed or vllm, got 'tgi'"):
        load_model("tiny", engine="tgi")
    assert spread({}, 1) == {} and spread({"engine": "packed"}, 2) == {"device_map": "auto"}
    assert spread({"engine": "vllm"}, 4) == {"engine": EngineOptions("vllm", tensor_parallel=4)}
    with pytest.raises(SfllavaError, match="needed tensor_parallel as large as a worker's 4 GPUs, got 2"):
        spread({"engine": EngineOptions("vllm", tensor_parallel=2)}, 4)


def test_a_prompt_past_the_shared_limit_names_the_packed_engine(models, monkeypatch):
    info = models().info
    assert info.engine == EngineInfo() and not info.engine.identity() and not info.engine.row()
    monkeypatch.setattr(info, "engine", EngineInfo("vllm", "0.32.0", packed_context=8192))
    monkeypatch.setattr(info, "context", 4096)
    with pytest.raises(SfllavaError, match=r"do not fit the context of 4096.*or the packed engine, which takes 8192"):
        info.check_context(4090, 20)
