"""The setting of a method that comes closest to a token budget."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from sfllava.aggregators.base import Aggregation, token_count
from sfllava.aggregators.image_grid import ImageGrid
from sfllava.aggregators.keyframes import Keyframes
from sfllava.aggregators.merged import Merged
from sfllava.aggregators.slowfast import SlowFast
from sfllava.aggregators.thumbnail import Thumbnail
from sfllava.types import SfllavaError

_POOLED = ("spatial_1d_max_pool", "spatial_2d_avg_pool", "concat")
_FAST = ((1, 1), (1, 2), (2, 2), (2, 4), (3, 6), (4, 4), (6, 6), (8, 8))
_SLOW_SHARE = 2880 / 3680  # of the tokens, in the paper's default
# name -> (tokens wanted, frames, patches of a frame) -> what may fit
CANDIDATES: dict[str, Callable[[int, int, int], Iterable[Aggregation]]] = {
    "slowfast": lambda n, frames, patches: [
        SlowFast(slow, pool, fast) for slow in range(1, frames + 1) for pool in _POOLED for fast in _FAST
    ],
    "slow only": lambda n, frames, patches: [
        SlowFast(slow, pool, (0, 0)) for slow in range(1, frames + 1) for pool in _POOLED
    ],
    "fast only": lambda n, frames, patches: [
        SlowFast(0, fast=(rows, columns)) for rows in range(1, 25) for columns in (rows, 2 * rows)
    ],
    "image grid": lambda n, frames, patches: [
        ImageGrid((2, 3), tiles) for tiles in ((0, 0), (1, 2), (2, 2), (2, 3), (3, 3))
    ],
    "thumbnail": lambda n, frames, patches: [Thumbnail((2, 3), n - patches)] if n > patches else [],
    "merged": lambda n, frames, patches: [Merged(n)],
    "keyframes": lambda n, frames, patches: [Keyframes(k, pool) for k in range(1, frames + 1) for pool in _POOLED],
}


def match_budget(method: str, tokens: int, frames: int = 50, h: int = 24, w: int = 24) -> Aggregation:
    """The aggregator of a method that comes nearest to `tokens` visual tokens from below.

    Among SlowFast's that come within 5 % of the nearest, the one whose Slow pathway has the share that it has in the
    paper's default. Raises SfllavaError where none is small enough.
    """
    if method not in CANDIDATES:
        raise SfllavaError(f"no method is called {method!r}; there are {', '.join(CANDIDATES)}")
    sizes: list[tuple[int, Aggregation]] = []
    for aggregation in CANDIDATES[method](tokens, frames, h * w):
        with contextlib.suppress(SfllavaError):  # a pool that this grid does not allow
            sizes.append((token_count(aggregation, frames, h, w), aggregation))
    small = [(size, aggregation) for size, aggregation in sizes if size <= tokens]
    if not small:
        least = f"; its smallest has {min(size for size, _ in sizes)}" if sizes else ""
        raise SfllavaError(f"{method} has no setting of at most {tokens} tokens at {h}x{w} patches a frame{least}")
    most, largest = max(small, key=lambda found: found[0])
    if method != "slowfast":
        return largest
    shares = [
        (1 - frames * a.fast[0] * a.fast[1] / size, a)
        for size, a in small
        if size >= 0.95 * most and isinstance(a, SlowFast)
    ]
    return min(shares, key=lambda found: abs(found[0] - _SLOW_SHARE))[1]
