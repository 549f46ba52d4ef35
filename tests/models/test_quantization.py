"""Language models in 4 and 8 bits, on the kernels that bitsandbytes has for CPUs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from backbone_models import BACKBONES
from devices import GPU
from test_layouts import edit
from torch import nn

from sfllava.attribution.attribution import attribute
from sfllava.benchmarks.shapesqa.scenes import draw_scene, random_scene
from sfllava.models import quantization
from sfllava.models.load import load_model
from sfllava.models.operations import QUANTIZATIONS
from sfllava.models.sizes import sizes_of
from sfllava.models.tiny.random_backbones import write_random_backbone
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.planning import plan
from sfllava.planning.stages import forward_bytes
from sfllava.runs.ask import ask
from sfllava.settings import Setting
from sfllava.types import SfllavaError

bitsandbytes = pytest.importorskip("bitsandbytes")
QUESTIONS = ["what is the color of the raft?", "how many animals are there?", "where is it?", "what do they do there?"]
# The largest relative error (Frobenius norm) of normally distributed weights: NF4 has 16 values, and int8 has 255
WEIGHT_ERROR = {"nf4": 0.11, "int8": 0.015}
# The largest relative error of the logits of the trained model with such weights
LOGIT_ERROR = {"nf4": 0.15, "int8": 0.02}


def folder_of(name: str, checkpoints, backbone_folders):
    return checkpoints("vicuna", name) if name in ("original", "transformers") else backbone_folders(name)


def linears(module: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of any kind, by name."""
    return {name: each for name, each in module.named_modules() if "Linear" in type(each).__name__}


def dequantized(layer) -> torch.Tensor:
    """The weights (outputs, inputs) that a layer computes with, by the functions of bitsandbytes."""
    if isinstance(layer, quantization.Int8Linear):
        return layer.weight * layer.scale
    return bitsandbytes.functional.dequantize_4bit(layer.weight, layer.weight.quant_state)


def logits(model, tokens) -> torch.Tensor:
    decoder = model.language_model
    with torch.inference_mode():
        return decoder.network.lm_head(decoder.run(decoder.prompt([1, 5], tokens, [7, 9, 11])))


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm().detach() / exact.norm().detach())


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
@pytest.mark.parametrize("name", ["original", "transformers", *BACKBONES])
def test_only_the_language_model_is_quantised(checkpoints, backbone_folders, name, quantize):
    folder = folder_of(name, checkpoints, backbone_folders)
    full, model = load_model(folder), load_model(folder, quantize=quantize)
    assert (model.info.quantize, model.info.dtype, full.info.quantize) == (quantize, torch.float32, None)
    assert model.info.fingerprint == full.info.fingerprint
    before, after = (each.language_model.network for each in (full, model))
    layers = linears(after)
    assert set(layers) == set(linears(before))
    inside = {name for name in layers if name.startswith("model.language_model.")}
    assert len(inside) == 7 * model.language_model.layers
    for name in set(layers) - inside:
        assert type(layers[name]) is nn.Linear, f"{name} must keep its dtype"
    # all else is as before: vision tower, projector, embeddings, norms, biases, output layer
    exact = dict(before.named_parameters())
    for name, parameter in after.named_parameters():
        if name.removesuffix(".weight") not in inside:
            assert torch.equal(parameter, exact[name]), name
    # and the layers have their own weights, within what 4 or 8 bits allow
    for name in inside:
        error = relative_error(dequantized(layers[name]), exact[f"{name}.weight"])
        assert 0 < error < WEIGHT_ERROR[quantize], name
    # the model with those weights in full precision is the reference
    with torch.no_grad():
        for name in inside:
            exact[f"{name}.weight"].copy_(dequantized(layers[name]))
    tokens = torch.randn(40, model.language_model.width, generator=torch.Generator().manual_seed(0))
    assert relative_error(logits(model, tokens), logits(full, tokens)) < 1e-4
    shared, alone = (model.answer(tokens, QUESTIONS, max_new_tokens=10, share_prefix=s) for s in (True, False))
    assert [a.token_ids for a in shared] == [a.token_ids for a in alone]
    assert [a.token_ids for a in shared] == [a.token_ids for a in full.answer(tokens, QUESTIONS, max_new_tokens=10)]


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_the_trained_model_stays_near_full_precision(quantize):
    full, model = load_model("tiny"), load_model("tiny", quantize=quantize)
    rng = np.random.default_rng(0)
    scene = random_scene(rng, 2)
    tokens = full.encode(np.stack([draw_scene(scene, rng, when) for when in (0.2, 0.8)])).flatten(0, 2)
    assert 0 < relative_error(logits(model, tokens), logits(full, tokens)) < LOGIT_ERROR[quantize]


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(quantize, dtype):
    full, model = load_model("tiny", quantize=quantize), load_model("tiny", dtype=dtype, quantize=quantize)
    tokens = torch.randn(20, model.language_model.width, generator=torch.Generator().manual_seed(0)) * 0.3
    found = logits(model, tokens)
    assert model.info.dtype == found.dtype == dtype
    assert relative_error(found.float(), logits(full, tokens)) < (0.02 if dtype == torch.float16 else 0.1)


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_an_answer_does_not_depend_on_the_batch(quantize):
    """The int8 layer of bitsandbytes itself would treat a column differently where another row has an outlier."""
    model = load_model("tiny", quantize=quantize)
    layer = model.language_model.network.model.language_model.layers[0].self_attn.q_proj
    x = torch.randn(8, model.language_model.width, generator=torch.Generator().manual_seed(0))
    x[0, 5] = 50
    with torch.inference_mode():
        torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]), rtol=0, atol=1e-5)
        torch.testing.assert_close(layer(x), x @ dequantized(layer).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_attention_and_log_likelihood(videos, quantize):
    model = load_model("tiny", quantize=quantize)
    setting = Setting(8, "slowfast-slow_2frms_concat-fast_2x2")
    asked = ask(model, videos / "a.mp4", ["what is it?"], setting, max_new_tokens=4)
    found = attribute(model, asked.video, setting, "what is it?", asked.answers[0].token_ids)
    assert found.attention.isfinite().all() and 0 < found.attention.sum(1).max() <= 1


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_planned_bytes_are_those_of_the_network(tmp_path, quantize):
    text = {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 4, "num_key_value_heads": 2}
    folder = write_random_checkpoint(tmp_path, family="mistral", text=text)
    model = load_model(folder, quantize=quantize)
    parts = {}
    for module in model.language_model.network.modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if (state := getattr(module, "quant_state", None)) is not None:
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        parts |= {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    actual, planned = sum(parts.values()), model.info.shape.weight_bytes(4)
    full = load_model(folder).info.shape.weight_bytes(4)
    # the tables of NF4 are planned for each matrix, and shared on a CPU; positions of RoPE are not planned
    assert abs(planned - actual) < 0.01 * actual + (1200 * 14 if quantize == "nf4" else 0)
    assert planned < (0.5 if quantize == "nf4" else 0.6) * full


def test_bad_input(checkpoints, backbone_folders, tmp_path, monkeypatch):
    def line(match, *arguments, **options):
        with pytest.raises(SfllavaError, match=match) as caught:
            load_model(*arguments, **options)
        assert "\n" not in str(caught.value)

    line("quantize must be nf4 or int8, got 'fp4'", checkpoints(), quantize="fp4")
    line(
        "quantize nf4 needs dtype float32, float16, bfloat16, got float64", "tiny", dtype=torch.float64, quantize="nf4"
    )
    line("no such checkpoint folder", tmp_path / "none", quantize="nf4")
    for name, folder in (("llava", backbone_folders("llava")), ("original", checkpoints("vicuna", "original"))):
        shutil.copytree(folder, tmp_path / name)
        edit(tmp_path / name, quantization_config={"quant_method": "awq", "bits": 4})
        line(r"quantised already \(awq\): load them without quantize", tmp_path / name, quantize="int8")
    write_random_backbone(tmp_path / "other", "llava", text={"hidden_size": 128})
    shutil.copy(backbone_folders("llava") / "config.json", tmp_path / "other" / "config.json")
    line("do not fit the config: wrong shapes", tmp_path / "other", quantize="nf4")

    with monkeypatch.context() as patched:
        patched.setattr(quantization.importlib.metadata, "version", lambda _: "0.45.0")
        line(
            r"nf4 needs bitsandbytes 0.46.1 or newer, got 0.45.0: pip install 'sfllava\[quantize\]'",
            "tiny",
            quantize="nf4",
        )
    with monkeypatch.context() as patched:
        patched.setattr(quantization.importlib.util, "find_spec", lambda _: None)
        line(r"needs bitsandbytes, which is not installed: pip install 'sfllava\[quantize\]'", "tiny", quantize="int8")

    def fail(*_, **__):
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    for broken in (fail, lambda weight, **_: (torch.zeros(64, 64), torch.zeros(64), None)):
        with monkeypatch.context() as patched:
            patched.setattr(bitsandbytes.functional, "int8_vectorwise_quant", broken)
            line(
                "int8: bitsandbytes .* does not work on cpu: .*(no kernel image|wrong numbers)", "tiny", quantize="int8"
            )


def test_importing_bitsandbytes_downloads_nothing(monkeypatch):
    """With the package `kernels`, bitsandbytes would download code from the hub at import, and execute it."""
    asked = []
    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=lambda *a, **k: asked.append(a)))
    for name in [name for name in sys.modules if name.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)

    def imported(name):
        assert name == "bitsandbytes"
        with pytest.raises(ImportError):
            import kernels  # noqa: F401
        return "imported"

    monkeypatch.setattr(quantization.importlib, "import_module", imported)
    assert quantization._import_bitsandbytes() == "imported"
    assert sys.modules["kernels"].get_kernel and not asked


def test_34b_in_4_bits_fits_24_gib():
    card = replace(GPU, dtype="bfloat16", memory_bytes=24 * 2**30, free_bytes=int(23.3 * 2**30))
    asked = {"videos": 100, "questions": 1200}
    made = {q: plan("34b", Setting(), "activitynet", card, **asked, quantize=q) for q in (None, *QUANTIZATIONS)}
    assert {q: each.fits for q, each in made.items()} == {None: False, "int8": False, "nf4": True}
    (one,) = made["nf4"].settings
    assert one.visual_tokens == 3680 and one.peak_bytes < card.free_bytes
    assert "what fits: --quantize nf4 (" in str(made[None]) and "what fits: --quantize nf4 (" in str(made["int8"])
    assert "(language model in nf4)" in str(made["nf4"]) and made["nf4"].to_dict()["quantize"] == "nf4"
    # by hand: 60 layers, and 4.127 bits a weight; embeddings, tower and projector in bfloat16
    matrices = 60 * (2 * 7168 * 7168 + 2 * 7168 * 1024 + 3 * 7168 * 20480)
    rest = made[None].weight_bytes - 2 * matrices
    assert made["nf4"].weight_bytes == pytest.approx(matrices * (4 + 8 / 64 + 32 / 64 / 256) / 8 + rest, rel=1e-4)
    assert made["int8"].weight_bytes == pytest.approx(matrices + rest, rel=1e-3)
    # a forward holds a dequantised matrix, and dequantising takes time
    full = sizes_of("34b").shape
    shapes = [replace(full, quantize=quantize) for quantize in QUANTIZATIONS]
    more = [forward_bytes(shape, 2, 3680) - forward_bytes(full, 2, 3680) for shape in shapes]
    assert more == [2 * 7168 * 20480 + 4 * 7168 * 20480 // 64, 2 * 7168 * 20480]
    assert made["nf4"].settings[0].prefill_seconds > made[None].settings[0].prefill_seconds
    with pytest.raises(SfllavaError, match="quantize must be nf4 or int8, got '4bit'"):
        plan("34b", Setting(), "activitynet", card, **asked, quantize="4bit")
    assert json.dumps(made["int8"].to_dict())
