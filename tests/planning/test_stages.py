"""Costs by stage, against torch's own counters and what the real code allocates."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from devices import CPU
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sfllava.models.load import load_model
from sfllava.models.packed_decoding import PackedBatch, PrefixGroup
from sfllava.models.tiny.random_backbones import write_random_backbone
from sfllava.planning import stages


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_operations_against_the_real_code(models, family):
    model = models(family)
    shape, frames = model.info.shape, np.zeros((3, 336, 336, 3), np.uint8)

    def counted(run) -> int:
        # of attention the counter knows the products alone, not the CPU's kernel
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    assert counted(lambda: model.encode(frames)) == stages.encode_cost(shape, CPU, 3, 2).flops

    tokens, before = torch.randn(70, shape.language.width), [1, 2, 3]
    inside = shape.language.count * shape.language.heads * shape.language.head_width
    # the counter takes causal attention for whole, where the kernels leave out what is not seen
    unseen = 4 * inside * (73 * 73 - 73 * 74 // 2)
    assert counted(lambda: model.prefill(before, tokens)) == stages.prefill_cost(shape, CPU, 73).flops + unseen
    prefix = model.prefill(before, tokens)
    other = torch.cat([tokens[:50], torch.randn(20, shape.language.width)])
    reused = stages.prefill_cost(shape, CPU, 73, 53).flops
    assert counted(lambda: model.prefill(before, other, prefix=prefix)) == reused and prefix.reused == 50
    # where more than half of the positions are new, the causal kernel computes all
    other = torch.cat([other[:20], torch.randn(50, shape.language.width)])
    reused = stages.prefill_cost(shape, CPU, 73, 23).flops + unseen
    assert counted(lambda: model.prefill(before, other, prefix=prefix)) == reused and prefix.reused == 20

    suffixes = [list(range(3, 10)) for _ in range(4)]
    with torch.inference_mode():
        packs = []
        flops = counted(lambda: packs.append(PackedBatch(model.language_model, [PrefixGroup(prefix, suffixes)])))
        assert flops == stages.forward_cost(shape, CPU, 1, 28, 73 + 28, 4).flops
        flops = counted(lambda: packs[0].decode_step([(i, 5) for i in range(4)]))
        assert flops == stages.forward_cost(shape, CPU, 1, 4, 73 + 28 + 4, 4).flops


@pytest.mark.parametrize("backbone", ["llava_next_video", "llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_operations_of_other_backbones(tmp_path, backbone):
    """Towers without CLS, merged patches, windows, deepstack sets; grouped queries and gated layers."""
    model = load_model(write_random_backbone(tmp_path, backbone))
    shape, side = model.info.shape, model.info.image_size
    frames = np.zeros((3, side, side, 3), np.uint8)

    def counted(run) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    encoded = counted(lambda: model.encode(frames))
    assert encoded == stages.encode_cost(shape, CPU, 3, 2).flops == shape.encode_flops(3)
    tokens, inside = torch.randn(70, shape.language.width), shape.language.heads * shape.language.head_width
    unseen = 4 * shape.language.count * inside * (73 * 73 - 73 * 74 // 2)
    assert counted(lambda: model.prefill([1, 2, 3], tokens)) == stages.prefill_cost(shape, CPU, 73).flops + unseen


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, each storage once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs or {})):
            if torch.is_tensor(tensor):
                self.known.add(id(tensor.untyped_storage()))  # was there before
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and id(storage := tensor.untyped_storage()) not in self.known:
                self.known.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self.gone, id(storage), storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def gone(self, storage: int, size: int) -> None:
        self.known.discard(storage)
        self.now -= size


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_activations_against_the_real_code(models, family):
    model = models(family)
    shape, tracked = model.info.shape, {}

    def most(run) -> int:
        with torch.inference_mode(), Alive() as alive:
            run()
        return alive.most

    tokens = torch.randn(400, shape.language.width)
    tracked["prefill"] = most(lambda: model.prefill([1], tokens))
    planned = shape.kv_bytes(401, 4) + stages.forward_bytes(shape, 4, 401)
    assert 0.7 * planned < tracked["prefill"] < 1.1 * planned
    pixels = torch.zeros(8, 336, 336, 3, dtype=torch.uint8)
    tracked["encode"] = most(lambda: model._encode(pixels, 8, model.encoder))
    planned = stages.encode_bytes(shape, 4, 8) + 2 * 8 * 576 * shape.language.width * 4
    assert 0.7 * planned < tracked["encode"] < 1.1 * planned
