from __future__ import annotations

import numpy as np
import pytest
import torch

from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import SLOW_POOLS
from sfllava.aggregators.slowfast import SlowFast, slow_indices
from sfllava.attribution.attribution import EXPLANATION, attribute, words_of
from sfllava.attribution.leave_out import leave_out, removable_parts
from sfllava.attribution.sources import token_sources
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.models import replay
from sfllava.models.load import load_model
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

SMALL = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2"


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def video(videos):
    return read_video(videos / "a.mp4", 6, size=(112, 112))


def random_grid(t: int, h: int, w: int, d: int = 5) -> torch.Tensor:
    return torch.randn(t, h, w, d, generator=torch.Generator().manual_seed(0))


def own_pool(grid):
    return grid[:, ::2].flatten(0, 2)


AVERAGES = [
    "slowfast-slow_4frms_spatial_1d_avg_pool-fast_4x4",
    "slowfast-slow_12frms_spatial_2d_avg_pool-fast_3x5",  # frames repeat, and windows overlap
    "slowfast-slow_3frms_spatial_temporal_pool-fast_0x0",
    "slowfast-slow_0frms_concat-fast_1x2",
    "spatial_temporal_pool", "temporal_global_pool", "concat", "none", "keyframes-3frms_spatial_2d_avg_pool",
]  # fmt: skip


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_are_their_shares_of_the_patches(name):
    aggregation, grid = parse_aggregation(name), random_grid(9, 8, 6)
    found = token_sources(aggregation, grid)
    rebuilt = torch.cat([torch.einsum("nt,np,tpd->nd", p.frames, p.patches, grid.flatten(1, 2)) for p in found])
    torch.testing.assert_close(rebuilt, aggregation(grid), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [f"spatial_{k}_max_pool" for k in ("1d", "2d")])
@pytest.mark.parametrize("width", [6, 7])
def test_maxima_are_over_their_shares_of_the_patches(name, width):
    """At an odd width pairs cross the ends of rows."""
    if "2d" in name and width == 7:
        return
    grid = random_grid(9, 8, width)
    slow = token_sources(SlowFast(4, name, (2, 2)), grid)[0]
    inside = torch.einsum("nt,np->ntp", slow.frames, slow.patches) > 0
    values = torch.where(inside[..., None], grid.flatten(1, 2)[None], -torch.inf).amax((1, 2))
    torch.testing.assert_close(values, SlowFast(4, name, (2, 2)).slow_tokens(grid))


@pytest.mark.parametrize("pool", SLOW_POOLS)
def test_heat_keeps_the_sum_and_the_frames(pool):
    grid = random_grid(9, 8, 6)
    slow, fast = token_sources(SlowFast(4, pool, (2, 3)), grid)
    assert slow.first == 0 and fast.first == len(slow.frames) and fast.frames.shape == (54, 9)
    weights = torch.rand(len(slow.frames))
    heat = slow.heat(weights)
    assert heat.shape == (9, 48)
    torch.testing.assert_close(heat.sum(), weights.sum())
    away = sorted(set(range(9)) - set(slow_indices(9, 4)))
    assert heat[away].abs().sum() == 0
    # a Fast token lies on its own frame and its own cell: 8x6 patches in 2x3 cells of 4x2
    one = torch.zeros(54)
    one[6 * 5 + 4] = 1
    where = fast.heat(one).reshape(9, 8, 6).nonzero()
    assert where[:, 0].unique().tolist() == [5] and where[:, 1].unique().tolist() == [4, 5, 6, 7]
    assert where[:, 2].unique().tolist() == [2, 3]


def test_a_pool_of_your_own_and_what_cannot_be_mapped():
    grid = random_grid(3, 4, 4)
    (own,) = token_sources(own_pool, grid)
    torch.testing.assert_close(
        torch.einsum("nt,np,tpd->nd", own.frames, own.patches, grid.flatten(1, 2)), own_pool(grid)
    )
    for name in ("merged-16", "image_grid-1x2", "thumbnail-1x2-sampled_8"):
        with pytest.raises(SfllavaError, match=f"{name}: its tokens cannot be mapped back"):
            token_sources(parse_aggregation(name), grid)


def test_a_look_is_the_plain_attention_on_the_frames(model, video):
    setting, question = Setting(6, SMALL), Question("Which colour flashed?")
    seen = attribute(model, video, setting, question)
    grid = model.encode(video.frames)
    tokens = setting.tokens(grid)
    answer = model.answer(tokens, [question])[0]
    assert seen.text == answer.text and seen.token_ids == answer.token_ids
    rows = replay.attention_weights(model, tokens, question, answer.token_ids)
    assert " ".join(seen.words) == answer.text
    totals = seen.totals(0)
    _, owner = words_of(model, answer.token_ids)
    first = rows[[i for i, word in enumerate(owner) if word == 0]].mean(0)
    assert sum(part.sum() for part in totals.values()) == pytest.approx(float(first.sum()), rel=1e-5)
    # the Slow tokens of the second Slow frame, 4x4 cells of 2x2 patches
    assert totals["slow"][slow_indices(6, 2)[1]] == pytest.approx(float(first[16:32].sum()), rel=1e-5)
    assert totals["fast"][3] == pytest.approx(float(first[32 + 12 : 32 + 16].sum()), rel=1e-5)
    cells = seen.heat("slow", 0)[0]
    np.testing.assert_allclose(cells[::2, ::2], cells[1::2, 1::2])
    assert cells[2, 4] == pytest.approx(float(first[1 * 4 + 2]) / 4, rel=1e-5)
    with pytest.raises(SfllavaError, match="no pathway is called 'quick'; there are slow, fast"):
        seen.heat("quick")


def test_words_keep_every_token(model):
    # its vocabulary has places as one token
    said = model.info.tokenizer.encode("a red square top left")
    words, owner = words_of(model, said)
    assert words == ("a", "red", "square", "top left") and len(owner) == len(said) and owner == sorted(owner)


def test_words_of_bytes_and_pieces(models):
    model = models()
    said = model.info.tokenizer.encode("the barrels é of")
    words, owner = words_of(model, said)
    assert " ".join(words) == model.info.tokenizer.decode(said) and owner == sorted(owner) and len(owner) == len(said)


def test_leaving_out_is_a_plain_recomputation(model, tmp_path):
    write_shapesqa(tmp_path, videos=1)
    video = read_video(tmp_path / "videos" / "test_0_0000.mp4", 6, size=(112, 112))
    setting, question = Setting(6, SMALL), Question("What colour is the small square?")
    grid = model.encode(video.frames)
    tokens, prefix = setting.tokens(grid), model.new_prefixes(1)[0]
    seen = attribute(model, video, setting, question, grid=grid, prefix=prefix)
    assert seen.log_likelihood == pytest.approx(
        float(replay.log_likelihoods(model, tokens, question, seen.token_ids).sum()), abs=1e-4
    )
    effects = dict(leave_out(model, seen, grid, prefix=prefix))
    assert set(effects) == {"slow", "fast", *(f"frame {i}" for i in range(6))} and effects == seen.left_out
    slow = slow_indices(6, 2)
    for i in range(6):  # by hand: which tokens of 2 x 16 Slow and 6 x 4 Fast ones a frame has
        gone = set(range(32 + 4 * i, 36 + 4 * i))
        gone |= {n for k, at in enumerate(slow) if at == i for n in range(16 * k, 16 * k + 16)}
        rest = tokens[[n for n in range(len(tokens)) if n not in gone]]
        plain = float(replay.log_likelihoods(model, rest, question, seen.token_ids).sum())
        assert effects[f"frame {i}"] == pytest.approx(plain - seen.log_likelihood, abs=1e-4)
    alone = float(replay.log_likelihoods(model, SlowFast(0, fast=(2, 2))(grid), question, seen.token_ids).sum())
    assert effects["slow"] == pytest.approx(alone - seen.log_likelihood, abs=1e-4)
    assert max(map(abs, effects.values())) > 1e-3, "leaving out changes something"


def test_leaving_out_stops_and_refuses(model, video):
    grid = model.encode(video.frames)
    seen = attribute(model, video, Setting(6, SMALL), "Which colour flashed?", grid=grid)
    with pytest.raises(SfllavaError, match="'frame 9' cannot be left out; what can: slow, fast, frame 5"):
        list(leave_out(model, seen, grid, ["frame 9"]))
    left = iter([True, True, False])
    assert len(list(leave_out(model, seen, grid, going=lambda: next(left)))) == 2
    mixed = attribute(model, video, Setting(6, "temporal_global_pool"), "Which colour flashed?", grid=grid)
    assert removable_parts(mixed) == {}, "its tokens mix all frames"
    with pytest.raises(SfllavaError, match="nothing here"):
        list(leave_out(model, mixed, grid, ["frame 0"]))


def test_the_help_says_what_attention_is_not():
    assert "not which ones made the answer" in EXPLANATION and "log-likelihood" in EXPLANATION
