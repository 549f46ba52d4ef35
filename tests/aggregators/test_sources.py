from __future__ import annotations

import numpy as np
import pytest
import torch

from sfllava.aggregators.image_grid import ImageGrid, interval_shares
from sfllava.aggregators.keyframes import Keyframes, keyframes
from sfllava.aggregators.merged import Merged
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import SLOW_POOLS
from sfllava.aggregators.slowfast import SlowFast, slow_indices
from sfllava.aggregators.sources import TokenSource, token_sources
from sfllava.aggregators.thumbnail import Thumbnail
from sfllava.types import SfllavaError


def random_grid(t: int, h: int, w: int, d: int = 5) -> torch.Tensor:
    return torch.randn(t, h, w, d, generator=torch.Generator().manual_seed(0))


def rebuilt(sources: list[TokenSource], grid: torch.Tensor) -> torch.Tensor:
    """The tokens as averages of the patches, by their shares."""
    return torch.cat([torch.einsum("nt,nhw,thwd->nd", s.frames, s.patches, grid) for s in sources])


def own_pool(grid):
    return grid[:, ::2].flatten(0, 2)


AVERAGES = [
    "slowfast-slow_4frms_spatial_1d_avg_pool-fast_4x4",
    "slowfast-slow_12frms_spatial_2d_avg_pool-fast_3x5",  # frames repeat, and windows overlap
    "slowfast-slow_3frms_spatial_temporal_pool-fast_0x0",
    "slowfast-slow_0frms_concat-fast_1x2",
    "slowfast-slow_4frms_spatial_1d_avg_pool-fast_3x5-fast_first",
    "spatial_temporal_pool", "temporal_global_pool", "concat", "none", "keyframes-3frms_spatial_2d_avg_pool",
    "merged-48", "merged-100", "merged-431", "merged-432", "merged-900",
]  # fmt: skip


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_are_their_shares_of_the_patches(name):
    aggregator, grid = parse_aggregation(name), random_grid(9, 8, 6)
    found = token_sources(aggregator, grid)
    torch.testing.assert_close(rebuilt(found, grid), aggregator(grid), atol=1e-5, rtol=1e-5)
    for source in found:
        torch.testing.assert_close(source.frames.sum(1), torch.ones(len(source.frames)))
        torch.testing.assert_close(source.patches.sum((1, 2)), torch.ones(len(source.frames)))


@pytest.mark.parametrize("name", [f"spatial_{k}_max_pool" for k in ("1d", "2d")])
@pytest.mark.parametrize("width", [6, 7])
def test_maxima_are_over_their_shares_of_the_patches(name, width):
    """At an odd width pairs cross the ends of rows."""
    if "2d" in name and width == 7:
        return
    grid = random_grid(9, 8, width)
    slow = token_sources(SlowFast(4, name, (2, 2)), grid)[0]
    inside = torch.einsum("nt,nhw->nthw", slow.frames, slow.patches) > 0
    values = torch.where(inside[..., None], grid[None], -torch.inf).amax((1, 2, 3))
    torch.testing.assert_close(values, SlowFast(4, name, (2, 2)).slow_tokens(grid))


@pytest.mark.parametrize("pool", SLOW_POOLS)
def test_heat_keeps_the_sum_and_the_frames(pool):
    slow, fast = token_sources(SlowFast(4, pool, (2, 3)), random_grid(9, 8, 6))
    assert [slow.name, fast.name] == ["slow", "fast"]
    assert slow.first == 0 and fast.first == len(slow.frames) and fast.frames.shape == (54, 9)
    assert fast.tokens == slice(fast.first, fast.first + 54)
    weights = torch.rand(len(slow.frames))
    heat = slow.heat(weights)
    assert heat.shape == (9, 8, 6)
    torch.testing.assert_close(heat.sum(), weights.sum())
    away = sorted(set(range(9)) - set(slow_indices(9, 4)))
    assert heat[away].abs().sum() == 0
    # a Fast token comes from one frame and one cell: 8x6 patches in 2x3 cells of 4x2
    one = torch.zeros(54)
    one[6 * 5 + 4] = 1
    where = fast.heat(one).nonzero()
    assert where[:, 0].unique().tolist() == [5] and where[:, 1].unique().tolist() == [4, 5, 6, 7]
    assert where[:, 2].unique().tolist() == [2, 3]


def test_centres_and_extents():
    slow, fast = token_sources(SlowFast(2, "spatial_1d_max_pool", (2, 3)), random_grid(5, 4, 6))
    assert fast.time[6 * 3].item() == 3 and fast.time_extent[6 * 3].item() == 1
    assert fast.row[:6].tolist() == [0.5] * 3 + [2.5] * 3 and fast.row_extent.unique().tolist() == [2]
    assert fast.column[:6].tolist() == [0.5, 2.5, 4.5] * 2 and fast.column_extent.unique().tolist() == [2]
    assert slow.time.tolist() == [0] * 12 + [2] * 12 and slow.row[:4].tolist() == [0, 0, 0, 1]
    assert (slow.row_extent[0], slow.column_extent[0]) == (1, 2)
    (odd,) = token_sources(SlowFast(1, "spatial_1d_max_pool", (0, 0)), random_grid(1, 2, 3))
    assert odd.row.tolist() == [0, 0.5, 1] and odd.column_extent.tolist() == [2, 3, 2], "the second crosses a row's end"
    assert odd.row_extent.tolist() == [1, 2, 1]
    (mean,) = token_sources(parse_aggregation("temporal_global_pool"), random_grid(5, 4, 6))
    assert mean.time.unique().tolist() == [2] and mean.time_extent.unique().tolist() == [5]
    assert mean.row[7].item() == 1 and mean.column[7].item() == 1 and mean.row_extent.unique().tolist() == [1]


def test_a_merged_token_comes_from_a_run_of_frames():
    grid = random_grid(1, 2, 2).expand(5, 2, 2, 5).clone()
    grid[3:, 1, 0] *= -1
    (found,) = token_sources(Merged(5), grid)
    assert found.name == "merged" and found.frames.shape == (5, 5) and found.patches.shape == (5, 2, 2)
    assert found.time_extent.tolist() == [5, 5, 3, 5, 2] and found.time.tolist() == [2, 2, 1, 2, 3.5]
    assert found.frames[4].tolist() == [0, 0, 0, 0.5, 0.5] and found.patches[4].tolist() == [[0, 0], [1, 0]]


def test_key_frames_are_those_that_the_features_choose():
    grid = random_grid(7, 4, 4)
    (found,) = token_sources(Keyframes(3), grid)
    chosen = keyframes(grid.flatten(1, 2).mean(1), 3)
    assert found.name == "key frames" and found.time.unique().tolist() == chosen


def lit(frames: int, size: int, frame: int, rows: slice, columns: slice) -> np.ndarray:
    video = np.zeros((frames, size, size, 3), np.uint8)
    video[frame, rows, columns] = 255
    return video


@pytest.mark.parametrize(
    ("aggregator", "frames"),
    [
        (ImageGrid((2, 3)), 9), (ImageGrid((1, 2), (2, 2)), 4), (ImageGrid((2, 2), (3, 3)), 4), (ImageGrid((2, 3)), 2),
        (Thumbnail((2, 3), 40), 9), (Thumbnail((2, 2), 9999), 3),
    ],
)  # fmt: skip
def test_tiled_frames_come_from_where_a_light_is_seen(aggregator, frames):
    """Light one patch of one frame: the tokens brighten whose source has it, in all other tokens nothing happens."""
    h, size = 6, 72
    grid = torch.zeros(len(aggregator.make_images(lit(frames, size, 0, slice(0), slice(0)))), h, h, 1)
    sources = token_sources(aggregator, grid, frames)
    shares = torch.cat([torch.einsum("nt,nhw->nthw", s.frames, s.patches) for s in sources])
    assert len(shares) == len(aggregator(grid)) and [s.first for s in sources] == [0, h * h][: len(sources)]
    for frame in range(frames):
        for row, column in ((0, 0), (2, 5), (3, 1), (5, 4)):
            cell = slice(12 * row, 12 * row + 12), slice(12 * column, 12 * column + 12)
            images = aggregator.make_images(lit(frames, size, frame, *cell))
            seen = torch.as_tensor(images[..., :1].astype(np.float32)).unflatten(1, (h, 12)).unflatten(3, (h, 12))
            tokens = aggregator(seen.mean((2, 4)))[:, 0] / 255
            torch.testing.assert_close(tokens, shares[:, frame, row, column], atol=0.1, rtol=0)


def test_shares_of_intervals():
    assert interval_shares(2, 4).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert torch.allclose(interval_shares(3, 2), torch.tensor([[1, 0], [0.5, 0.5], [0, 1]]))
    assert torch.equal(interval_shares(5, 5), torch.eye(5))


def test_frames_that_do_not_divide_the_patches_are_refused():
    with pytest.raises(SfllavaError, match=r"2x3 tiled frames cannot be mapped back: they do not divide 8x8 patches"):
        token_sources(ImageGrid((2, 3)), torch.zeros(1, 8, 8, 1), 6)
    with pytest.raises(SfllavaError, match=r"3x2 tiled frames cannot be mapped back"):
        token_sources(Thumbnail((3, 2), 8), torch.zeros(7, 8, 8, 1), 6)


def test_a_pool_of_your_own_and_what_cannot_be_mapped():
    grid = random_grid(3, 4, 4)
    (own,) = found = token_sources(own_pool, grid)
    assert own.name == "all frames"
    torch.testing.assert_close(rebuilt(found, grid), own_pool(grid))
    for other in (
        lambda grid: grid.flatten(0, 2)[:, :2],
        lambda grid: grid.flatten(0, 2) - 0.5,
        lambda grid: 0 * grid[0, 0],
    ):
        with pytest.raises(SfllavaError, match="cannot be mapped back to frames"):
            token_sources(other, grid)

    class Images:
        def make_images(self, frames):
            return frames[:1]

        def __call__(self, grid):
            return grid.flatten(0, 2)

    with pytest.raises(SfllavaError, match=r"makes images of frames but has no token_sources\(grid, frames\)"):
        token_sources(Images(), grid)


@pytest.mark.parametrize("aggregator", [ImageGrid((2, 3)), Thumbnail((2, 3), 8)])
def test_images_made_of_frames_need_the_number_of_frames(aggregator):
    with pytest.raises(SfllavaError, match="needed the number of sampled frames"):
        token_sources(aggregator, torch.zeros(13, 12, 12, 1))
