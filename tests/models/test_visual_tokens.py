"""Aggregation of grids with further feature sets, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backbone_models import QUESTIONS, sampled

from sfllava import Setting
from sfllava.aggregators.naming import parse_aggregation
from sfllava.models.visual_tokens import aggregate


def test_deepstack_sets_follow_the_choices_made_on_the_main_set():
    torch.manual_seed(0)
    grid = torch.randn(6, 4, 4, 3 * 5)
    first, *others = grid.split(5, -1)
    # averages: each set on its own
    pool = parse_aggregation("slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")
    embeddings, sets = aggregate(pool, grid, 5)
    assert torch.equal(embeddings, pool(first))
    for k, other in enumerate(others):
        torch.testing.assert_close(sets[:, k], pool(other))
    # a maximum: the values at the patch with the maximum in the main set
    embeddings, sets = aggregate(parse_aggregation("spatial_2d_max_pool"), grid, 5)
    _, index = torch.nn.functional.max_pool2d(first.permute(0, 3, 1, 2), 2, 2, return_indices=True)
    for k, other in enumerate(others):
        wanted = other.permute(0, 3, 1, 2).flatten(2).gather(2, index.flatten(2)).transpose(1, 2).flatten(0, 1)
        assert torch.equal(sets[:, k], wanted)
    # key frames and merging: the frames and patches chosen on the main set
    for name in ("keyframes-2frms_concat", "merged-20"):
        method = parse_aggregation(name)
        _, sets = aggregate(method, torch.cat([first, first], -1), 5)
        torch.testing.assert_close(sets[:, 0], method(first))
    assert aggregate(pool, first, 5)[1] is None


def test_a_grid_is_not_taken_for_tokens(backbones, shared):
    model = backbones("qwen3_vl")
    grid = model.encode(sampled(shared, 0, 2).frames)
    for ask in (model.answer, lambda *a: list(model.stream(a[0], a[1][0]))):
        with pytest.raises(Exception, match=r"make them of a grid with model.tokens"):
            ask(grid.flatten(0, 2), QUESTIONS)


def test_native_needs_a_model():
    with pytest.raises(Exception, match=r"needed setting.for_model\(model.info\)"):
        Setting(4, "native").tokens(torch.zeros(4, 2, 2, 8))
    with pytest.raises(Exception, match=r"needed setting.for_model\(model.info\)"):
        Setting(4, "native").images(np.zeros((4, 8, 8, 3), np.uint8))
