"""Shapes of known models and of checkpoints, against the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfllava.models.families import find_family
from sfllava.models.family import LoadOptions
from sfllava.models.known import KNOWN
from sfllava.models.sizes import sizes_of


@pytest.mark.parametrize("name", KNOWN)
def test_known_shapes_have_the_parameters_of_the_real_ones(name):
    family = find_family(KNOWN[name].config, Path(name))
    made = family.configure(KNOWN[name].config, Path(name), LoadOptions())
    with torch.device("meta"):
        network = family.network(made.config)
    family.encoder(network, made, None)
    assert sizes_of(name).shape.parameters == sum(p.numel() for p in network.parameters())


def test_known_shapes_are_the_published_ones():
    found = {
        name: (
            s.language.count,
            s.language.width,
            s.language.inner,
            s.language.heads,
            s.language.kv_heads,
            s.vocabulary,
        )
        for name, s in ((name, sizes_of(name).shape) for name in ("7b", "13b", "mistral-7b", "34b"))
    }
    assert found == {
        "7b": (32, 4096, 11008, 32, 32, 32000),
        "13b": (40, 5120, 13824, 40, 40, 32000),
        "mistral-7b": (32, 4096, 14336, 32, 8, 32000),
        "34b": (60, 7168, 20480, 56, 8, 64000),
    }
    assert all(sizes_of(name).shape.language.head_width == 128 for name in KNOWN if name != "onevision-0.5b")
    # as the names say, in billions of parameters, vision tower included
    billions = {name: round(sizes_of(name).shape.parameters / 1e9, 1) for name in KNOWN}
    assert billions == {
        "7b": 7.1, "13b": 13.3, "mistral-7b": 7.6, "34b": 34.7, "llama3-8b": 8.3, "next-72b": 72.7, "next-110b": 111.6,
        "llava-1.5-7b": 7.1, "llava-1.5-13b": 13.3, "next-video-7b": 7.1,
        "onevision-0.5b": 0.9, "onevision-7b": 8.0, "onevision-72b": 73.2,
        "qwen2.5-vl-3b": 3.8, "qwen2.5-vl-7b": 8.3, "qwen2.5-vl-32b": 33.5, "qwen2.5-vl-72b": 73.4,
        "qwen3-vl-2b": 2.1, "qwen3-vl-4b": 4.4, "qwen3-vl-8b": 8.8, "qwen3-vl-32b": 33.4,
    }  # fmt: skip
    limits = {name: (sizes_of(name).context, sizes_of(name).shared_positions, sizes_of(name).family) for name in KNOWN}
    assert limits["7b"] == limits["13b"] == (8192, 4096, "vicuna")
    assert limits["34b"] == (8192, 4096, "chatml") and limits["mistral-7b"] == (8192, 32768, "mistral")
    assert sizes_of("llava-hf/llava-v1.6-vicuna-7b-hf") == sizes_of("7b")
    assert sizes_of("liuhaotian/llava-v1.6-mistral-7b") == sizes_of("mistral-7b")


def test_parameters_of_a_loaded_model(models):
    for family in ("vicuna", "mistral", "chatml"):
        model = models(family)
        assert model.info.shape.parameters == sum(p.numel() for p in model.language_model.network.parameters())
        sizes = sizes_of(model.info.path)
        assert (sizes.shape, sizes.context, sizes.family) == (model.info.shape, model.info.context, model.info.family)
        assert sizes.shared_positions == model.language_model.shared_positions
    assert sizes_of("tiny").family == "tiny"
