"""The names of aggregators, and parsing them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sfllava.aggregators.base import Aggregation
from sfllava.aggregators.image_grid import ImageGrid
from sfllava.aggregators.keyframes import Keyframes
from sfllava.aggregators.merged import Merged
from sfllava.aggregators.pools import POOLS, SLOW_POOLS, Pool
from sfllava.aggregators.slowfast import SlowFast
from sfllava.aggregators.thumbnail import Thumbnail
from sfllava.types import SfllavaError

_N = r"([1-9]\d{0,5})"
_S = r"(0|[1-9]\d{0,5})"
# pattern of a name, how it is written in words, and what makes the aggregation of its parts
_NAMES: list[tuple[str, str, Callable[..., Any]]] = [
    (
        rf"slowfast-slow_{_S}frms_([a-z0-9_]+)-fast_{_S}x{_S}",
        "slowfast-slow_{FRAMES}frms_{POOL}-fast_{ROWS}x{COLUMNS}",
        lambda frames, pool, rows, columns: SlowFast(int(frames), pool, (int(rows), int(columns))),
    ),
    (
        rf"image_grid-{_N}x{_N}(?:-tiles_{_N}x{_N})?",
        "image_grid-{ROWS}x{COLUMNS}[-tiles_{ROWS}x{COLUMNS}]",
        lambda a, b, c, d: ImageGrid((int(a), int(b)), (int(c or 0), int(d or 0))),
    ),
    (
        rf"thumbnail-{_N}x{_N}-sampled_{_N}",
        "thumbnail-{ROWS}x{COLUMNS}-sampled_{TOKENS}",
        lambda a, b, n: Thumbnail((int(a), int(b)), int(n)),
    ),
    (rf"merged-{_N}", "merged-{TOKENS}", lambda n: Merged(int(n))),
    (rf"keyframes-{_N}frms_([a-z0-9_]+)", "keyframes-{FRAMES}frms_{POOL}", lambda n, pool: Keyframes(int(n), pool)),
]


def parse_aggregation(name: str) -> Aggregation:
    """The aggregation of a name such as `slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4`, `merged-1024`, `concat`.

    `str()` of the result is the name again. Raises SfllavaError, with all the names that there are.
    """
    for pattern, _, make in _NAMES:
        if found := re.fullmatch(pattern, name, re.ASCII):
            return make(*found.groups())
    if name in POOLS:
        return Pool(name)
    raise SfllavaError(
        f"no aggregation is called {name!r}; needed {', '.join(words for _, words, _ in _NAMES)} "
        f"(POOL one of {', '.join(SLOW_POOLS)}), or one of {', '.join(POOLS)}"
    )
