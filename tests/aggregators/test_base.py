"""The interface of an aggregator, and its defaults for a plain callable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sfllava.aggregators import base
from sfllava.aggregators.image_grid import ImageGrid
from sfllava.aggregators.keyframes import Keyframes
from sfllava.aggregators.merged import Merged
from sfllava.aggregators.pools import Pool
from sfllava.aggregators.slowfast import SlowFast, named_pathways, slow_indices
from sfllava.aggregators.thumbnail import Thumbnail
from sfllava.settings import Setting
from sfllava.types import SfllavaError

from conftest import FirstFrames  # isort: skip

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)


def corners(grid):
    return grid[:, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(0, 1)


def above_mean(grid):
    tokens = grid.flatten(0, 2)
    return tokens[tokens[:, 0] >= tokens[:, 0].mean()]


def test_a_plain_callable_needs_nothing_else():
    assert base.make_images(corners, FRAMES) is FRAMES and not base.makes_images(corners)
    assert base.image_count(corners, 6) == 6 and base.part_counts(corners, 6, 8, 8) == {"all frames": 24}
    assert base.detailed_frames(corners, 6) == [] and not base.needs_features(corners)
    assert base.prefix_key(corners) == base.identity_key(corners) != base.identity_key(above_mean)
    assert base.token_count(above_mean, 2, 3, 3) == 18, "it looks at values: zeros in place of shapes alone"
    assert base.token_count(corners, 1, 8, 8) == 4


@pytest.mark.parametrize(
    ("aggregator", "images"),
    [
        (SlowFast(), 6), (Pool("concat"), 6), (Merged(64), 6), (Keyframes(2), 6), (ImageGrid(), 1),
        (ImageGrid((2, 3), (2, 3)), 7), (Thumbnail(), 7), (FirstFrames([4]), 4),
    ],
)  # fmt: skip
def test_images_are_counted_without_pixels(aggregator, images):
    assert base.image_count(aggregator, 6) == len(base.make_images(aggregator, FRAMES)) == images
    assert Setting(6, aggregator).images(FRAMES).shape == (images, 32, 32, 3)


def test_parts_are_the_tokens_in_order():
    grid = torch.randn(6, 4, 4, 3)
    parts = base.token_parts(SlowFast(2, "concat", (2, 2)), grid)
    assert list(parts) == ["slow", "fast"]
    assert torch.equal(torch.cat(list(parts.values())), SlowFast(2, "concat", (2, 2))(grid))
    assert base.part_counts(SlowFast(2, "concat", (2, 2)), 6, 4, 4) == {"slow": 32, "fast": 24}
    assert base.part_counts(SlowFast(0, fast=(1, 2)), 6, 4, 4) == {"slow": 0, "fast": 12}
    assert base.part_counts(SlowFast(3, "concat", (0, 0)), 6, 4, 4) == {"slow": 48, "fast": 0}


def test_equal_prefix_keys_mean_equal_first_tokens():
    grid = torch.randn(6, 4, 4, 3)
    made = [
        SlowFast(2, "concat", (2, 2)), SlowFast(2, "concat", (1, 1)), SlowFast(3, "concat", (2, 2)),
        SlowFast(2, "spatial_2d_avg_pool", (2, 2)), SlowFast(2, corners, (1, 1)), SlowFast(2, corners, (2, 2)),
        Pool("concat"), Pool("none"), Merged(64),
    ]  # fmt: skip
    for one in made:
        for other in made:
            shared = base.shared_tokens(one, other, 6, 4, 4)
            assert torch.equal(one(grid)[:shared], other(grid)[:shared])
            assert (shared > 0) == (base.prefix_key(one) == base.prefix_key(other))
    assert base.shared_tokens(made[0], made[1], 6, 4, 4) == 32, "the Slow pathway"
    assert base.shared_tokens(made[0], SlowFast(2, "concat", (2, 2)), 6, 4, 4) == 56, "everything"
    assert base.shared_tokens(made[6], Pool("concat"), 6, 4, 4) == 96
    assert base.shared_tokens(SlowFast(0, fast=(1, 1)), SlowFast(0, fast=(2, 2)), 6, 4, 4) == 0


def test_detailed_frames_are_those_of_the_slow_pathway():
    assert base.detailed_frames(SlowFast(2), 6) == slow_indices(6, 2) == [0, 3]
    assert base.detailed_frames(SlowFast(0), 6) == [] == base.detailed_frames(Merged(64), 6)


def test_pathways_that_controls_can_show():
    assert named_pathways(SlowFast(3)) == SlowFast(3)
    assert named_pathways(SlowFast(3, corners)) is None and named_pathways(Pool("concat")) is None


def test_features_decide_where_merged_tokens_and_key_frames_come_from():
    assert base.needs_features(Merged(64)) and base.needs_features(Keyframes(2)) and not base.needs_features(SlowFast())


def test_identity_is_the_value_or_the_object():
    @dataclass(frozen=True)
    class Own:
        columns: int

        def __str__(self):
            return "own"

    @dataclass
    class Changeable(Own.__mro__[1]):
        columns: int

    assert base.identity_key(Own(1)) == base.identity_key(Own(1)) != base.identity_key(Own(2))
    one, two = FirstFrames([1]), FirstFrames([1])
    assert base.name_of(one) == base.name_of(two) == base.name_of(Own(3)) == "own"
    assert base.identity_key(one) == base.identity_key(one) != base.identity_key(two)
    assert hash(base.identity_key(one)) == hash(base.identity_key(one)) and base.identity_key(one) != one
    assert base.identity_key(Changeable(1)) != base.identity_key(Changeable(1)), "unhashable: the object itself"
    assert base.identity_key(Pool("concat")) != base.identity_key("concat")


def test_names_are_the_same_in_the_next_process():
    class Own:
        pass

    assert base.name_of(corners) == "corners" and " at 0x" not in base.name_of(Own())
    assert base.name_of(Own) == "Own" and base.name_of(SlowFast()) == str(SlowFast())


def test_checks():
    base.check_counts("x", "grid", 1, 1)
    for counts in ((0, 1), (2, -1)):
        with pytest.raises(SfllavaError, match=r"str: grid needs numbers of at least 1, got"):
            base.check_counts("x", "grid", *counts)
    base.check_grid(torch.zeros(1, 1, 1, 1))
    for shape in ((0, 1, 1, 1), (1, 1, 1), (1, 1, 1, 1, 1)):
        with pytest.raises(SfllavaError, match="needed a patch grid"):
            base.check_grid(torch.zeros(shape))
    assert base.token_count(corners, 1) == 4
    with pytest.raises(SfllavaError, match="frames must be at least 1, got 0"):
        base.token_count(corners, 0)
