"""Token budgets, and methods that are found by their modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sfllava.aggregators
from sfllava.aggregators.base import token_count
from sfllava.aggregators.image_grid import ImageGrid
from sfllava.aggregators.keyframes import Keyframes
from sfllava.aggregators.matching import budget_methods, match_budget
from sfllava.aggregators.merged import Merged
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.slowfast import SlowFast
from sfllava.aggregators.thumbnail import Thumbnail
from sfllava.types import SfllavaError

OWN = """
from dataclasses import dataclass

from sfllava.aggregators.methods import COUNT, Candidates, Method


@dataclass(frozen=True)
class EveryNth:
    n: int

    def __call__(self, grid):
        return grid.flatten(0, 2)[:: self.n]

    def __str__(self):
        return f"every-{self.n}"


METHOD = Method(
    f"every-{COUNT}", "every-{N}", lambda n: EveryNth(int(n)),
    {"every nth": Candidates(lambda tokens, frames, patches: map(EveryNth, range(1, 100)))},
)
"""


@pytest.mark.parametrize(
    ("method", "tokens", "chosen"),
    [
        ("slowfast", 3680, SlowFast(5, "concat", (4, 4))),
        ("slowfast", 1024, SlowFast(3, "spatial_1d_max_pool", (1, 2))),
        ("slow only", 3680, SlowFast(25, "spatial_2d_avg_pool", (0, 0))),
        ("slow only", 288, SlowFast(1, "spatial_1d_max_pool", (0, 0))),
        ("slow only", 150, SlowFast(1, "spatial_2d_avg_pool", (0, 0))),
        ("fast only", 3680, SlowFast(0, fast=(6, 12))),
        ("fast only", 50, SlowFast(0, fast=(1, 1))),
        ("fast only", 50 * 24 * 48, SlowFast(0, fast=(24, 48))),
        ("fast only", 50 * 24 * 24, SlowFast(0, fast=(24, 24))),
        ("image grid", 576, ImageGrid((2, 3), (0, 0))),
        ("image grid", 3 * 576, ImageGrid((2, 3), (1, 2))),
        ("image grid", 3680, ImageGrid((2, 3), (2, 2))),
        ("image grid", 7 * 576, ImageGrid((2, 3), (2, 3))),
        ("image grid", 99999, ImageGrid((2, 3), (3, 3))),
        ("thumbnail", 577, Thumbnail((2, 3), 1)),
        ("thumbnail", 3680, Thumbnail((2, 3), 3104)),
        ("merged", 1024, Merged(1024)),
        ("keyframes", 3680, Keyframes(25, "spatial_2d_avg_pool")),
        ("keyframes", 50 * 576, Keyframes(50, "concat")),
        ("keyframes", 144, Keyframes(1, "spatial_2d_avg_pool")),
    ],
)
def test_settings_for_a_budget(method, tokens, chosen):
    assert match_budget(method, tokens) == chosen


@pytest.mark.parametrize(
    ("method", "tokens", "smallest"),
    [("slow only", 143, 144), ("fast only", 49, 50), ("image grid", 575, 576), ("keyframes", 143, 144),
     ("slowfast", 193, 194)],
)  # fmt: skip
def test_one_token_less_than_the_smallest(method, tokens, smallest):
    assert token_count(match_budget(method, smallest), 50) == smallest
    with pytest.raises(
        SfllavaError, match=f"at most {tokens} tokens at 24x24 patches a frame; its smallest has {smallest}"
    ):
        match_budget(method, tokens)


def test_a_budget_without_candidates_says_so():
    with pytest.raises(SfllavaError, match=r"thumbnail has no setting of at most 576 tokens at 24x24 patches a frame$"):
        match_budget("thumbnail", 576)


def test_slowfast_prefers_the_share_of_the_paper_among_nearly_equal_sizes():
    for tokens in (600, 1024, 2000, 3000, 3680, 5000, 8000):
        candidates = list(budget_methods()["slowfast"].make(tokens, 50, 576))
        fitting = [(token_count(c, 50), c) for c in candidates if token_count(c, 50) <= tokens]
        largest = max(size for size, _ in fitting)

        def distance(size: int, made: SlowFast) -> float:
            return abs((size - 50 * made.fast[0] * made.fast[1]) / size - 2880 / 3680)

        chosen = match_budget("slowfast", tokens)
        size = token_count(chosen, 50)
        assert size >= 0.95 * largest
        assert distance(size, chosen) == min(distance(s, c) for s, c in fitting if s >= 0.95 * largest)


def test_candidates_of_slowfast():
    made = list(budget_methods()["slowfast"].make(0, 3, 576))
    assert {c.slow_frames for c in made} == {1, 2, 3} and len(made) == 3 * 3 * 8
    grids = {(1, 1), (1, 2), (2, 2), (2, 4), (3, 6), (4, 4), (6, 6), (8, 8)}
    assert {c.fast for c in made} == grids and {c.slow for c in made} == {
        "spatial_1d_max_pool", "spatial_2d_avg_pool", "concat",
    }  # fmt: skip


def test_a_grid_that_a_pool_refuses_leaves_the_other_pools():
    assert match_budget("slow only", 49, 50, 7, 7) == SlowFast(1, "concat", (0, 0))


def test_the_order_of_methods():
    assert list(budget_methods()) == [
        "slowfast", "slow only", "fast only", "image grid", "thumbnail", "merged", "keyframes", "visionzip", "fastvid",
        "holitom", "vidcom2", "dyto", "prunevid",
    ]  # fmt: skip
    with pytest.raises(SfllavaError) as error:
        parse_aggregation("best")
    assert str(error.value) == (
        "no aggregation is called 'best'; needed slowfast-slow_{FRAMES}frms_{POOL}-fast_{ROWS}x{COLUMNS}"
        "[-fast_first], image_grid-{ROWS}x{COLUMNS}[-tiles_{ROWS}x{COLUMNS}], thumbnail-{ROWS}x{COLUMNS}-sampled_{TOKENS}, "
        "merged-{TOKENS}, keyframes-{FRAMES}frms_{POOL}, visionzip-{TOKENS}, fastvid-{TOKENS}, holitom-{TOKENS}, "
        "vidcom2-{TOKENS}, dyto-{TOKENS}, prunevid-{TOKENS}, tiers-{FRAMES}_{FRAMES}_..., native (the model's own processing), or one of concat, "
        "spatial_1d_max_pool, spatial_1d_avg_pool, spatial_2d_max_pool, spatial_2d_avg_pool, spatial_temporal_pool, "
        "temporal_global_pool, none, bilinear_{H}x{W}, adaptive_{H}x{W} (POOL may be any of these except 'none')"
    )


def test_a_new_method_is_one_new_file(tmp_path, monkeypatch):
    (tmp_path / "own_every.py").write_text(OWN)
    monkeypatch.setattr(sfllava.aggregators, "__path__", [*sfllava.aggregators.__path__, str(tmp_path)])
    try:
        made = parse_aggregation("every-3")
        assert str(made) == "every-3" and token_count(made, 2, 3, 3) == 6
        assert str(match_budget("every nth", 100, 10, 8, 8)) == "every-7"
        with pytest.raises(SfllavaError, match=r"needed every-\{N\}$"):
            parse_aggregation("every-0")
    finally:
        sys.modules.pop("sfllava.aggregators.own_every", None)
    with pytest.raises(SfllavaError, match="no aggregation is called"):
        monkeypatch.undo()
        parse_aggregation("every-3")


def test_settings_need_no_other_import():
    code = "from sfllava.settings import Setting; print(Setting(4, 'merged-9').name)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "4frms-merged-9\n"
