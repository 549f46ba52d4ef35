from __future__ import annotations

import pytest
import torch

from sfllava.aggregators.base import part_counts, tier_counts, with_tiers
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.sources import token_sources
from sfllava.aggregators.tiers import Tiers
from sfllava.types import SfllavaError

GRID = torch.randn(9, 8, 6, 5, generator=torch.Generator().manual_seed(0))


def test_frames_of_lower_rank_have_fewer_tokens():
    aggregator = with_tiers(Tiers((1, 2)), [[4], [7, 1]])
    tokens = aggregator(GRID)
    pooled = {i: GRID[i].reshape(4, 2, 3, 2, 5).mean((1, 3)).reshape(12, 5) for i in (1, 7)}
    torch.testing.assert_close(tokens, torch.cat([pooled[1], GRID[4].flatten(0, 1), pooled[7]]))
    assert aggregator.detailed_frames(9) == [4]
    (source,) = token_sources(aggregator, GRID)
    assert source.frames.argmax(1).tolist() == [1] * 12 + [4] * 48 + [7] * 12
    torch.testing.assert_close(torch.einsum("nt,nhw,thwd->nd", source.frames, source.patches, GRID), tokens)


def test_frames_without_ranks_are_evenly_spaced():
    aggregator = parse_aggregation("tiers-1_2_4")
    assert aggregator == Tiers((1, 2, 4)) and str(aggregator) == "tiers-1_2_4" and tier_counts(aggregator) == (1, 2, 4)
    frames = token_sources(aggregator, GRID)[0].frames.argmax(1)
    # of 9 the middle one, then the third and seventh of the other 8, then four of the other 6
    assert frames.bincount(minlength=9).tolist() == [2, 0, 12, 2, 48, 2, 0, 12, 2]
    assert (
        part_counts(aggregator, 9, 8, 6) == {"all frames": 48 + 2 * 12 + 4 * 2} == {"all frames": len(aggregator(GRID))}
    )
    assert part_counts(aggregator, 2, 8, 6) == {"all frames": 48 + 12}, "a short video"
    assert Tiers().token_count(44) == 4 * 576 + 8 * 144 + 32 * 36
    assert Tiers((1,) * 7).token_count(7, 8, 6) == 48 + 12 + 2 + 4 * 1, "at least one token each"


@pytest.mark.parametrize("name", ["tiers-", "tiers-0_2", "tiers-1_", "tiers-1-2"])
def test_names_that_are_none(name):
    with pytest.raises(SfllavaError, match="no aggregation is called"):
        parse_aggregation(name)
    with pytest.raises(SfllavaError, match="Tiers: counts needs"):
        Tiers(())
