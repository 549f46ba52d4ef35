from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfllava.aggregators.base import token_count
from sfllava.aggregators.image_grid import ImageGrid, tile
from sfllava.aggregators.keyframes import Keyframes, keyframes
from sfllava.aggregators.matching import budget_methods, match_budget
from sfllava.aggregators.merged import Merged
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.thumbnail import Thumbnail
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

NAMES = [
    "image_grid-2x3",
    "image_grid-2x3-tiles_2x2",
    "thumbnail-2x3-sampled_192",
    "merged-256",
    "keyframes-6frms_concat",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_back_and_budgets_hold(name):
    aggregation = parse_aggregation(name)
    assert str(aggregation) == name
    setting = Setting(16, name)
    images = setting.images(np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8))
    tokens = setting.tokens(torch.randn(len(images), 8, 8, 5))
    assert tokens.shape == (setting.token_count(8, 8), 5)


@pytest.mark.parametrize(
    "name", ["merged-0", "image_grid-2x", "keyframes-3frms_none", "thumbnail-0x3-sampled_4", "merged"]
)
def test_other_names_are_refused(name):
    with pytest.raises(SfllavaError, match=r"no (aggregation|pool) is called"):
        parse_aggregation(name)


def test_tiles_stand_in_the_order_of_time():
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(5, 2).repeat(3, 3)
    image = tile(frames, 2, 3)
    assert image.shape == (8, 15, 3)
    assert image[::4, ::5, 0].tolist() == [[1, 3, 5], [7, 9, 11]]
    assert tile(frames[:2], 2, 3)[::4, ::5, 0].tolist() == [[0, 0, 0], [1, 1, 1]]  # a short video's frames repeat


def test_an_image_grid_is_the_whole_and_its_tiles():
    frames = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)
    images = ImageGrid((2, 2), (2, 2)).make_images(frames)
    assert images.shape == (5, 32, 48, 3)
    # cut at the frames' own size, each tile is one of the tiled frames
    chosen = tile(frames, 2, 2).reshape(2, 32, 2, 48, 3).swapaxes(1, 2).reshape(4, 32, 48, 3)
    assert np.array_equal(images[1:], chosen)


def test_a_thumbnail_comes_first_and_patches_from_all_frames_follow():
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    assert Thumbnail((2, 2), 16).make_images(frames).shape == (9, 16, 16, 3)
    grid = torch.arange(9).float()[:, None, None, None].expand(9, 2, 2, 1)
    tokens = Thumbnail((2, 2), 16)(grid)[:, 0].tolist()
    assert tokens == [0] * 4 + [t for t in range(1, 9) for _ in range(2)]


def test_merging_keeps_what_changes():
    still = torch.randn(4, 4, 6)
    grid = still.expand(5, 4, 4, 6).clone()
    assert torch.allclose(Merged(16)(grid), still.flatten(0, 1))  # nothing moved: one frame is all there is
    grid[3:, 1, 2] = -grid[3:, 1, 2]
    tokens = Merged(17)(grid)
    assert torch.allclose(tokens[:16], still.flatten(0, 1), atol=1e-6)
    assert torch.allclose(tokens[16], grid[4, 1, 2], atol=1e-6)
    assert torch.equal(Merged(5 * 16)(grid), grid.flatten(0, 2))  # no room needed: all stay, in order
    with pytest.raises(SfllavaError, match="needs at least the 4x4 = 16 patches"):
        Merged(15)(grid)


@given(st.integers(1, 9), st.integers(9, 60), st.integers(0, 99))
def test_merging_keeps_the_weighted_mean(frames, tokens, seed):
    grid = torch.randn(frames, 3, 3, 4, generator=torch.Generator().manual_seed(seed))
    merged = Merged(tokens)(grid)
    assert len(merged) == min(tokens, frames * 9)
    if len(merged) == 9:
        assert torch.allclose(merged, grid.flatten(1, 2).mean(0), atol=1e-5)


def test_keyframes_are_one_of_each_scene():
    scenes = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    order = [0] * 10 + [1] * 3 + [2] * 7
    features = scenes[order] + 0.01 * torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    chosen = keyframes(features, 3)
    assert [order[i] for i in chosen] == [0, 1, 2] and chosen == keyframes(features, 3)
    assert keyframes(features, 30) == list(range(20))
    assert len(set(keyframes(torch.zeros(20, 8), 5))) == 5  # alike as they are, no frame is taken twice
    grid = features[:, None, None].expand(20, 2, 2, 8)
    assert torch.equal(Keyframes(3)(grid), grid[chosen].flatten(0, 2))


@pytest.mark.parametrize(("tokens", "frames", "side"), [(3680, 50, 24), (1024, 50, 24), (256, 32, 8)])
def test_every_method_has_a_setting_near_a_budget(tokens, frames, side):
    for method in budget_methods():
        size = token_count(match_budget(method, tokens, frames, side, side), frames, side, side)
        assert size <= tokens
        assert size >= (0.5 if method == "image grid" else 0.85) * tokens, (method, size)
    both = match_budget("slowfast", tokens, frames, side, side)
    assert both.slow_frames and both.fast != (0, 0)


def test_a_budget_too_small_says_what_the_smallest_is():
    with pytest.raises(SfllavaError, match=r"image grid has no setting of at most 63 tokens at 8x8 .* smallest has 64"):
        match_budget("image grid", 63, 32, 8, 8)
    with pytest.raises(SfllavaError, match="no method is called 'best'; choose from slowfast, slow only"):
        match_budget("best", 63)


def test_methods_run_through_ask_on_a_real_video(models, clip):
    from sfllava import ask

    model = models()
    for name in ("image_grid-2x3", "thumbnail-2x3-sampled_64", "merged-700", "keyframes-2frms_spatial_2d_avg_pool"):
        setting = Setting(8, name)
        asked = ask(model, clip, ["what is it?"], setting, max_new_tokens=4)
        video = read_video(clip, 8, size=(336, 336))
        tokens = setting.tokens(model.encode(setting.images(video.frames)))
        assert asked.visual_tokens == len(tokens) == setting.token_count()
        plain = model.answer(tokens, [Question("what is it?")], max_new_tokens=4, share_prefix=False)
        assert asked.answers[0].token_ids == plain[0].token_ids
