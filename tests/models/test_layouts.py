"""Layouts of checkpoint backbone_folders, and configs that cannot be used."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from backbone_models import QUESTIONS, SLOWFAST, sampled, visual_part

from sfllava import load_model
from sfllava.models.tiny.random_backbones import write_random_backbone


@pytest.mark.parametrize("backbone", ["llava", "llava_onevision"])
def test_original_layouts(backbone_folders, shared, tmp_path, backbone):
    original = load_model(write_random_backbone(tmp_path, backbone, original=True))
    model = load_model(backbone_folders(backbone))
    assert (original.info.layout, original.info.model_type) == ("original", backbone)
    video = sampled(shared, 0, 4)
    one, two = (visual_part(m, video, SLOWFAST).embeddings for m in (model, original))
    torch.testing.assert_close(one, two)
    assert original.info.shape.vision.count == model.info.shape.vision.count
    # the original LLaVA-OneVision was trained with another chat format than that on the hub
    assert original.info.family == ("llava_qwen" if backbone == "llava_onevision" else "vicuna")


def edit(folder, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        part, _, key = name.rpartition("__")
        (config[part] if part else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("backbone", "fields", "message"),
    [
        ("qwen3_vl", {"model_type": "qwen3_vl_moe"}, r"model_type llava or .*qwen3_vl.*got model_type 'qwen3_vl_moe'"),
        ("llava", {"vision_feature_select_strategy": "full"}, "must be default, which drops CLS, got 'full'"),
        ("llava_onevision", {"vision_feature_select_strategy": "default"}, "must be full, since this tower has no CLS"),
        ("llava", {"vision_config__hidden_size": 128}, "do not fit the config: wrong shapes"),
        ("qwen2_5_vl", {"vision_config__out_hidden_size": 32}, "out_hidden_size 32 is not the language model's"),
        ("qwen2_5_vl", {"vision_config__spatial_merge_size": 5}, "spatial_merge_size must divide 24, got 5"),
        ("qwen3_vl", {"vision_config__spatial_merge_size": 0}, "spatial_merge_size|ZeroDivisionError"),
        ("qwen2_5_vl", {"vision_config__num_heads": 0}, "num_heads must be from 1"),
        ("qwen2_5_vl", {"vision_config__depth": 10**7}, "depth must be from 1 to 1,000, got 10,000,000"),
        ("qwen2_5_vl", {"num_hidden_layers": 200_000}, "num_hidden_layers must be from 1 to 1,000"),
        ("llava_next_video", {"spatial_pool_stride": 0}, "cannot be used: ZeroDivisionError"),
        ("llava", {"quantization_config": {"quant_method": "gptq"}}, r"quantised \(gptq\).*pip install gptqmodel"),
    ],
)
def test_configs_that_cannot_be_used(tmp_path, backbone, fields, message):
    folder = write_random_backbone(tmp_path, backbone)
    edit(folder, **fields)
    with pytest.raises(Exception, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_preprocessor_that_does_not_match_the_tower(tmp_path):
    folder = write_random_backbone(tmp_path / "a", "llava")
    (folder / "preprocessor_config.json").write_text(json.dumps({"crop_size": {"height": 224, "width": 224}}))
    with pytest.raises(Exception, match="makes images of 224 pixels, but the vision tower takes 336"):
        load_model(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2], "image_std": [1, 1, 1]}))
    with pytest.raises(Exception, match="image_mean must be three numbers"):
        load_model(folder)
    folder = write_random_backbone(tmp_path / "b", "qwen2_5_vl")
    (folder / "preprocessor_config.json").write_text(json.dumps({"patch_size": 16}))
    with pytest.raises(Exception, match="preprocessor has patch_size 16, but the vision tower has 14"):
        load_model(folder)


def test_pixel_statistics_come_from_the_preprocessor(tmp_path, shared):
    folder = write_random_backbone(tmp_path, "llava")
    before = load_model(folder).encode(sampled(shared, 0, 1).frames)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    assert not torch.allclose(load_model(folder).encode(sampled(shared, 0, 1).frames), before, atol=1e-3)


def test_a_flat_config_as_on_the_hub(backbone_folders, tmp_path):
    """Qwen2.5-VL's has the fields of the language model at the top, and M-RoPE as rope_scaling."""
    shutil.copytree(backbone_folders("qwen2_5_vl"), tmp_path / "flat")
    config = json.loads((tmp_path / "flat" / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"]}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    flat = {**{k: v for k, v in text.items() if k not in ("model_type", "layer_types")}, **config}
    (tmp_path / "flat" / "config.json").write_text(json.dumps(flat))
    one, two = load_model(backbone_folders("qwen2_5_vl")), load_model(tmp_path / "flat")
    assert one.info.shape == two.info.shape
    tokens = torch.randn(20, one.language_model.width)
    said = [model.answer(tokens, QUESTIONS, max_new_tokens=6) for model in (one, two)]
    assert [a.token_ids for a in said[0]] == [a.token_ids for a in said[1]]
