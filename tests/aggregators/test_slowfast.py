from __future__ import annotations

import pytest
import torch

from sfllava.aggregators.base import part_counts, shared_tokens, token_count, token_parts
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import SLOW_POOLS, Pool
from sfllava.aggregators.slowfast import SlowFast, slow_indices
from sfllava.aggregators.sources import token_sources
from sfllava.settings import Setting
from sfllava.types import SfllavaError

NAMES = (
    *(f"slowfast-slow_{s}frms_{pool}-fast_{f}" for pool in SLOW_POOLS for s in (1, 10) for f in ("4x4", "3x6", "0x0")),
    "slowfast-slow_0frms_concat-fast_2x4",
    "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4-fast_first",
    "slowfast-slow_10frms_concat-fast_0x0-fast_first",
    *SLOW_POOLS,
    "none",
)


def grid(t=6, h=24, w=24, d=5, seed=0):
    return torch.randn(t, h, w, d, generator=torch.Generator().manual_seed(seed))


def test_the_default_is_3680_tokens():
    assert SlowFast().token_count(50) == 10 * 24 * 12 + 50 * 16 == 3680
    assert str(SlowFast()) == "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
    assert Setting().token_count() == 3680


@pytest.mark.parametrize("name", NAMES)
def test_names_read_and_written_and_counted(name):
    aggregation = parse_aggregation(name)
    assert str(aggregation) == name
    for t in (1, 3, 10, 11, 50):
        for h, w in ((24, 24), (14, 14), (6, 8)):
            assert len(aggregation(grid(t, h, w))) == aggregation.token_count(t, h, w), (name, t, h, w)


@pytest.mark.parametrize(
    "name",
    [
        "slowfast-slow_10frms_spatial_1d_max_pol-fast_4x4",
        "slowfast-slow_10frms_none-fast_4x4",
        "slowfast-slow_010frms_concat-fast_4x4",
        "slowfast-slow_10frms_concat-fast_4x0",
        "slowfast-slow_0frms_concat-fast_0x0",
        "slowfast-slow_10frms_concat-fast_4x4 ",
        "slowfast-slow_10frms_concat-fast_4x4-slow_first",
        "Concat",
        "",
    ],
)
def test_a_typo_is_an_error_that_says_what_there_is(name):
    with pytest.raises(SfllavaError, match=r"concat|no visual tokens|at least 1"):
        parse_aggregation(name)


def test_slow_indices_are_float32_truncated():
    assert slow_indices(50, 10) == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert slow_indices(7, 3) == [0, 2, 4]
    assert slow_indices(3, 5) == [0, 0, 1, 1, 2]  # they repeat
    # integer division gives 1 at the eighth place: 2/14 * 7 is below 1 in float32
    assert slow_indices(2, 14) == [0] * 8 + [1] * 6


def test_tokens_are_slow_then_fast_frame_by_frame_row_by_row():
    g = grid(6, 4, 4, 3)
    tokens = SlowFast(2, "concat", (2, 2))(g)
    slow = torch.cat([g[i].reshape(16, 3) for i in (0, 3)])
    torch.testing.assert_close(tokens[:32], slow)
    fast = [g[t, r : r + 2, c : c + 2].mean((0, 1)) for t in range(6) for r in (0, 2) for c in (0, 2)]
    torch.testing.assert_close(tokens[32:], torch.stack(fast))


@pytest.mark.parametrize("chosen", [False, True])
def test_fast_first_has_the_published_tokens_in_another_order(chosen):
    g = grid(6, 4, 4, 3)
    published, other = SlowFast(2, "concat", (2, 2)), SlowFast(2, "concat", (2, 2), order="fast-first")
    if chosen:
        published, other = (one.with_frames([1, 5], [0, 2, 3]) for one in (published, other))
    fast = 4 * (3 if chosen else 6)
    assert torch.equal(other(g), torch.cat([published(g)[32:], published(g)[:32]])) and other.order == "fast-first"
    assert part_counts(other, 6, 4, 4) == {"fast": fast, "slow": 32} and list(token_parts(other, g)) == ["fast", "slow"]
    by_name = {source.name: source for source in token_sources(published, g)}
    found = token_sources(other, g)
    assert [(source.name, source.first) for source in found] == [("fast", 0), ("slow", fast)]
    for source in found:
        assert torch.equal(source.frames, by_name[source.name].frames)
        assert torch.equal(source.patches, by_name[source.name].patches)
    assert other.detailed_frames(6) == published.detailed_frames(6) and published != other


def test_what_is_first_is_shared():
    def fast_first(*values, **more):
        return SlowFast(*values, order="fast-first", **more)

    one = fast_first(2, "concat", (2, 2))
    assert shared_tokens(one, fast_first(3, "spatial_2d_avg_pool", (2, 2)), 6, 4, 4) == 6 * 4
    assert shared_tokens(one, fast_first(2, "concat", (1, 2)), 6, 4, 4) == 0
    assert shared_tokens(one, SlowFast(2, "concat", (2, 2)), 6, 4, 4) == 0
    chosen = [one.with_frames([i, 5], [0, 2, 3]) for i in (1, 2)]
    assert shared_tokens(*chosen, 6, 4, 4) == 3 * 4
    assert shared_tokens(chosen[0], one.with_frames([1, 5], [0, 2, 4]), 6, 4, 4) == 0
    with pytest.raises(SfllavaError, match="order must be slow-first or fast-first, got 'fast'"):
        SlowFast(order="fast")


def test_pools_by_hand():
    g = grid(3, 4, 6, 2)
    flat = g.reshape(3, 24, 2)
    for name, reduce in (("max", lambda x: x.amax(2)), ("avg", lambda x: x.mean(2))):
        pairs = torch.stack([flat[:, 0::2], flat[:, 1::2]], 2)
        torch.testing.assert_close(Pool(f"spatial_1d_{name}_pool")(g), reduce(pairs).reshape(-1, 2))
        corners = [g[:, i::2, j::2].reshape(3, 6, 2) for i in (0, 1) for j in (0, 1)]
        torch.testing.assert_close(Pool(f"spatial_2d_{name}_pool")(g), reduce(torch.stack(corners, 2)).reshape(-1, 2))
    torch.testing.assert_close(Pool("temporal_global_pool")(g), g.mean(0).reshape(-1, 2))
    torch.testing.assert_close(Pool("concat")(g), g.reshape(-1, 2))
    torch.testing.assert_close(Pool("none")(g), g[0].reshape(-1, 2))


def test_spatial_temporal_pool_is_16_12_12():
    g = grid(32, 24, 24, 2)
    wanted = g.reshape(16, 2, 12, 2, 12, 2, 2).mean((1, 3, 5)).reshape(-1, 2)
    torch.testing.assert_close(Pool("spatial_temporal_pool")(g), wanted)
    assert len(Pool("spatial_temporal_pool")(grid(3))) == 16 * 12 * 12  # fewer frames are stretched


@pytest.mark.parametrize(
    ("name", "h", "w", "tokens"),
    [
        ("spatial_1d_max_pool", 5, 4, 10),
        ("spatial_1d_max_pool", 27, 27, 364),
        ("spatial_1d_avg_pool", 5, 5, 12),
        ("spatial_2d_avg_pool", 5, 4, 4),
        ("spatial_2d_max_pool", 27, 27, 169),
        ("concat", 5, 7, 35),
        ("bilinear_14x14", 27, 27, 196),
        ("adaptive_3x2", 27, 27, 6),
    ],
)
def test_odd_grids(name, h, w, tokens):
    """What is left over at the end is dropped, as torch does."""
    features = grid(2, h, w)
    assert len(Pool(name)(features)) == Pool(name).token_count(2, h, w) == 2 * tokens
    assert SlowFast(2, name, (2, 2)).token_count(4, h, w) == 2 * tokens + 16
    changed = features.clone()
    changed[:, -1, -1] += 100
    dropped = (name.startswith("spatial_1d") and h * w % 2) or (name.startswith("spatial_2d") and (h % 2 or w % 2))
    assert torch.equal(Pool(name)(changed), Pool(name)(features)) == bool(dropped)


def test_sized_pools_are_torch_s():
    features = grid(3, 9, 7)
    channels_first = features.permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(channels_first, size=(4, 3), mode="bilinear")
    assert torch.equal(Pool("bilinear_4x3")(features), wanted.permute(0, 2, 3, 1).flatten(0, 2))
    wanted = torch.nn.functional.adaptive_avg_pool2d(channels_first, (4, 3))
    assert torch.equal(Pool("adaptive_4x3")(features), wanted.permute(0, 2, 3, 1).flatten(0, 2))
    with pytest.raises(SfllavaError, match=r"no pool is called 'bilinear_0x3'.*; choose from .*bilinear_"):
        Pool("bilinear_0x3")
    with pytest.raises(SfllavaError, match="spatial_2d_max_pool needs a larger grid than 1x4 patches"):
        Pool("spatial_2d_max_pool")(grid(2, 1, 4))


def test_pathways_alone():
    g = grid()
    torch.testing.assert_close(SlowFast(4, "concat", (0, 0))(g), SlowFast(4, "concat").slow_tokens(g))
    torch.testing.assert_close(SlowFast(0, fast=(3, 2))(g), SlowFast(fast=(3, 2)).fast_tokens(g))


def test_a_pool_of_one_s_own():
    def corners(x):
        return x[:, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(0, 1)

    mine = SlowFast(2, corners, (1, 1))
    assert mine.token_count(6) == 2 * 4 + 6 == len(mine(grid()))
    assert str(mine) == "slowfast-slow_2frms_corners-fast_1x1"
    assert Setting(6, corners).token_count() == 24 == token_count(corners, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SlowFast(-1), "slow_frames must be 0 or more, got -1"),
        (lambda: SlowFast(fast=(0, 4)), r"fast must be two numbers of at least 1, or \(0, 0\)"),
        (lambda: SlowFast(slow="none"), "no slow pool is called 'none'"),
        (lambda: Pool("max"), "no pool is called 'max'; choose from concat, "),
        (lambda: SlowFast().token_count(0), "frames must be at least 1, got 0"),
        (lambda: SlowFast()(torch.zeros(3, 4, 5)), r"needed a patch grid of shape \(T h w D\).*got \(3, 4, 5\)"),
        (lambda: Setting(0), "frames must be a whole number of at least 1, got 0"),
        (lambda: Setting(2.5), "frames must be a whole number of at least 1, got 2.5"),
    ],
)
def test_errors_say_what_was_needed(make, message):
    with pytest.raises(SfllavaError, match=message):
        make()
