"""Token reducers: the papers' rules, exact budgets, sources, and every size and dtype."""

from __future__ import annotations

import literal_reducers as literal
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfllava.aggregators import base
from sfllava.aggregators.fastvid import segments
from sfllava.aggregators.holitom import static_windows
from sfllava.aggregators.matching import match_budget
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.prunevid import frame_windows, refined
from sfllava.aggregators.reduction import spread
from sfllava.aggregators.sources import token_sources
from sfllava.aggregators.tower import PatchGrid
from sfllava.models.visual_tokens import aggregate
from sfllava.settings import Setting
from sfllava.types import SfllavaError

NAMES = ("visionzip", "fastvid", "holitom", "vidcom2", "dyto", "prunevid")
KEPT = {"dyto": 2}  # the others take tokens of every frame, or of most


def scenes(t: int, h: int, w: int, d: int = 32, seed: int = 0, moving: float = 0.5) -> PatchGrid:
    """A video with cuts, in which some places stay nearly the same from frame to frame."""
    rng = torch.Generator().manual_seed(seed)
    grid = torch.randn(t, h, w, d, generator=rng)
    for i in range(1, t):
        if i % 4:
            still = torch.rand(h, w, 1, generator=rng) > moving
            near = grid[i - 1] + 0.2 * torch.randn(h, w, d, generator=rng)
            grid[i] = torch.where(still, near, grid[i])
    return PatchGrid(grid, torch.rand(t, h, w, generator=rng), torch.randn(t, h, w, 8, generator=rng))


def given_to(name: str, grid: PatchGrid):
    return grid if getattr(parse_aggregation(f"{name}-9"), "needs", ()) else grid.features


def literally(name: str, grid: PatchGrid, tokens: int) -> np.ndarray:
    x, attention, keys = (v.flatten(1, 2).double().numpy() for v in (grid.features, grid.attention, grid.keys))
    more = {"visionzip": (attention, keys), "fastvid": (attention,), "holitom": (attention,)}.get(name, ())
    return getattr(literal, name)(x, *more, tokens)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("t", "h", "w", "tokens"), [(8, 4, 5, 40), (8, 4, 5, 27), (9, 3, 3, 61), (1, 5, 5, 9)])
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_the_papers_formulas(name, t, h, w, tokens, seed):
    grid = scenes(t, h, w, seed=seed)
    if name == "dyto" and tokens > KEPT["dyto"] * h * w and t > 1:
        tokens = 30
    wanted = literally(name, grid, tokens)
    got = parse_aggregation(f"{name}-{tokens}")(given_to(name, grid))
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, torch.from_numpy(wanted).float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_long_video_of_few_patches(name):
    grid = scenes(40 if name != "holitom" else 12, 2, 2, seed=5, moving=0.2)
    tokens = 44 if name != "holitom" else 20
    got = parse_aggregation(f"{name}-{tokens}")(given_to(name, grid))
    torch.testing.assert_close(got, torch.from_numpy(literally(name, grid, tokens)).float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("t", "h", "w"), [(1, 24, 24), (2, 27, 27), (3, 5, 7), (24, 6, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_exactly_so_many_tokens_and_their_sources(name, t, h, w, dtype):
    grid = scenes(t, h, w, d=16)
    grid = PatchGrid(grid.features.to(dtype), grid.attention, grid.keys.to(dtype))
    full = t * h * w
    for tokens in (t, t + 1, full // 3, full - 1, full, full + 5):
        method, x = parse_aggregation(f"{name}-{tokens}"), given_to(name, grid)
        assert str(method) == f"{name}-{tokens}" and base.image_count(method, t) == t and base.needs_features(method)
        got, (source,) = method(x), token_sources(method, x)
        assert got.shape == (min(tokens, full), 16) and got.dtype == dtype and got.isfinite().all()
        assert torch.equal(got, method(x)), "the same at every call"
        assert base.token_count(method, t, h, w) == len(got) == len(source.frames)
        assert source.frames.shape[1:] == (t,) and source.patches.shape[1:] == (h, w) and source.name == name
        torch.testing.assert_close(source.frames.sum(1), torch.ones(len(got)))
        torch.testing.assert_close(source.patches.sum((1, 2)), torch.ones(len(got)))
        for extent, most in ((source.time_extent, t), (source.row_extent, h), (source.column_extent, w)):
            assert extent.min() >= 1 and extent.max() <= most
    assert torch.equal(parse_aggregation(f"{name}-{full}")(x), grid.features.flatten(0, 2)), "all stay, in order"


@pytest.mark.parametrize("name", NAMES)
def test_sources_tell_which_patches_matter(name):
    """Change a patch that no token comes from: nothing happens. One frame, where shares of patches say it all."""
    grid, method = scenes(1, 6, 6), parse_aggregation(f"{name}-9")
    (source,) = token_sources(method, given_to(name, grid))
    reduction = method._reduction(given_to(name, grid), grid.features, 9)
    changed = grid.features.clone()
    outside = (source.patches.sum(0) == 0).nonzero().tolist()
    for row, column in outside:
        changed[0, row, column] += 100
    assert torch.equal(reduction.tokens(changed), reduction.tokens(grid.features))
    row, column = (source.patches[4] > 0).nonzero()[0].tolist()
    changed[0, row, column] += 100
    assert not torch.equal(reduction.tokens(changed)[4], reduction.tokens(grid.features)[4])
    if name not in ("dyto", "visionzip"):  # a maximum, and a sum of two means
        mean = torch.einsum("nhw,hwd->nd", source.patches, grid.features[0])
        torch.testing.assert_close(mean, method(given_to(name, grid)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_still_video_and_equal_patches(name):
    """Equal values everywhere: ties are broken by place, and no token is lost or undefined."""
    one = torch.randn(1, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    grid = PatchGrid(one.expand(6, 4, 4, 16).clone(), torch.full((6, 4, 4), 1 / 16), one.expand(6, 4, 4, 16).clone())
    for tokens in (6, 20, 95):
        got = parse_aggregation(f"{name}-{tokens}")(given_to(name, grid))
        direction = torch.nn.functional.cosine_similarity(got, one.flatten()[None], dim=-1)
        assert len(got) == tokens and (direction > 0.9999).all()
        if name != "visionzip":  # contextual tokens are sums
            torch.testing.assert_close(got, one.reshape(1, 16).expand(tokens, 16), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n in ("vidcom2", "dyto", "prunevid")])
def test_deepstack_sets_follow_the_choices_of_the_main_set(name):
    first = scenes(6, 4, 4, d=16).features
    other = torch.randn(first.shape)
    method = parse_aggregation(f"{name}-20")
    embeddings, sets = aggregate(method, torch.cat([first, first, other], -1), 16)
    assert torch.equal(embeddings, method(first))
    torch.testing.assert_close(sets[:, 0], method(first))
    if name != "dyto":
        found = method._reduction(first, first, 20)
        torch.testing.assert_close(sets[:, 1], found.tokens(other), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_is_met_exactly(name):
    for tokens in (3680, 1840, 920):
        assert base.token_count(match_budget(name, tokens), 50) == tokens
        assert base.token_count(match_budget(name, tokens, 8, 14, 14), 8, 14, 14) == min(tokens, 8 * 196)


def test_what_needs_the_tower_says_so():
    grid = scenes(3, 4, 4)
    for name, missing in (("visionzip", "attention"), ("fastvid", "attention"), ("holitom", "attention")):
        method = parse_aggregation(f"{name}-9")
        for call in (method, lambda g, m=method: token_sources(m, g)):
            with pytest.raises(SfllavaError, match=rf"{name}-9 needs the vision tower's {missing}: needed a grid from"):
                call(grid.features)
    with pytest.raises(SfllavaError, match="visionzip-9 needs the vision tower's keys"):
        parse_aggregation("visionzip-9")(PatchGrid(grid.features, grid.attention))
    for name in ("visionzip", "fastvid", "vidcom2"):
        with pytest.raises(SfllavaError, match=f"{name}-2 needs at least one token for each of 3 frames"):
            base.token_count(parse_aggregation(f"{name}-2"), 3)
    with pytest.raises(SfllavaError, match=r"tokens needs numbers of at least 1"):
        type(parse_aggregation("holitom-9"))(0)


def test_others_get_the_features_alone():
    grid = scenes(3, 4, 4)
    for name in ("merged-20", "concat", "slowfast-slow_1frms_concat-fast_2x2", "vidcom2-20"):
        method = parse_aggregation(name)
        assert torch.equal(Setting(3, name).tokens(grid), method(grid.features))
        assert torch.equal(torch.cat(list(base.token_parts(method, grid).values())), method(grid.features))
        theirs, ours = token_sources(method, grid.features), token_sources(method, grid)
        assert all(torch.equal(a.frames, b.frames) for a, b in zip(theirs, ours))


def test_windows_and_segments():
    scene = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    frames = scene[[0] * 9 + [1] * 8 + [2] * 11]
    frames = frames + 0.01 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(3))
    assert {0, 9, 17} <= {start for start, _ in segments(frames)}, "cuts, and more to make 8 segments"
    assert segments(frames[:1]) == [(0, 1)] == frame_windows(frames[:1])
    assert refined([0, 0, 1, 0, 2, 2, 2]) == [0, 0, 2, 2, 2, 2, 2] and refined([0, 1, 2]) == [0, 0, 0]
    assert refined([1, 0, 0, 0, 1, 1]) == [0, 0, 0, 0, 1, 1] and refined([3]) == [0]
    assert refined([0, 0, 1, 2, 2]) == [0, 0, 0, 2, 2], "equally long neighbours: the left one"
    still = torch.ones(5, 4, dtype=torch.bool)
    still[2] = False
    assert static_windows(still) == [(0, 3), (3, 6)] and static_windows(still[:0]) == [(0, 1)]
    assert static_windows(~still | still) == [(0, 6)]


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 12)), min_size=1, max_size=9), st.integers(0, 60))
def test_shares_are_exact(parts, total):
    weights, most = [w for w, _ in parts], [m for _, m in parts]
    counts = spread(total, weights, most)
    assert sum(counts) == min(total, sum(most)) and all(0 <= c <= m for c, m in zip(counts, most))
    least = spread(total, weights, most, least=1)
    assert sum(least) == sum(counts) and (total < len(parts) or all(c >= min(1, m) for c, m in zip(least, most)))


def test_shares_are_in_proportion():
    assert spread(10, [1, 1, 1], [9, 9, 9]) == [4, 3, 3] and spread(10, [3, 1, 1], [4, 9, 9]) == [4, 3, 3]
    assert spread(7, [0.2, 0.5, 0.3], [99] * 3) == [1, 4, 2] and spread(4, [0, 0], [3, 3]) == [2, 2]
    assert spread(5, [1, 0, 0], [9, 9, 9], least=1) == [3, 1, 1]
