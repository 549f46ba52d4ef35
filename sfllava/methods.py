"""Ways beyond SlowFast from a video to visual tokens, the names of all of them, and what fits a token budget.

Each is a small callable: patch grid (T h w D) -> visual tokens (N D). One that tiles frames into an image of its own
has `compose` besides: frames (T H W 3) -> the images (T' H W 3) that go through the vision tower in their place.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.sampler import resize_frames
from sfllava.slowfast import POOLS, SLOW_POOLS, Pool, SlowFast, check_grid
from sfllava.types import Aggregation, Setting, SfllavaError


def tile(frames: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(T H W 3) -> (rows*H, columns*W, 3): frames at equal distances, row by row; a short video's repeat."""
    n = rows * columns
    chosen = frames[(2 * np.arange(n) + 1) * len(frames) // (2 * n)]
    return chosen.reshape(rows, columns, *frames.shape[1:]).swapaxes(1, 2).reshape(rows * frames.shape[1], -1, 3)


@dataclass(frozen=True)
class ImageGrid:
    """Frames tiled into one image: as a whole, and cut into `tiles` (rows, columns) where these are not (0, 0).

    Source: IG-VLM, arXiv 2403.18406, which tiles six frames and lets LLaVA-NeXT cut the image into 2x2 besides.
    """

    grid: tuple[int, int] = (2, 3)
    tiles: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        _check_counts(self, "grid", *self.grid)
        if self.tiles != (0, 0):
            _check_counts(self, "tiles", *self.tiles)

    def compose(self, frames: np.ndarray) -> np.ndarray:
        size, (rows, columns) = frames.shape[1:3], self.tiles
        image = tile(frames, *self.grid)
        parts = [resize_frames(image[None], size)]
        if rows:
            large = resize_frames(image[None], (rows * size[0], columns * size[1]))[0]
            cut = large.reshape(rows, size[0], columns, size[1], 3).swapaxes(1, 2)
            parts.append(cut.reshape(rows * columns, *size, 3))
        return np.concatenate(parts)

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        return grid.flatten(0, 2)

    def __str__(self) -> str:
        tiles = "-tiles_{}x{}".format(*self.tiles) if self.tiles[0] else ""
        return "image_grid-{}x{}".format(*self.grid) + tiles


@dataclass(frozen=True)
class Thumbnail:
    """One image of tiled frames, then `sampled` patches at equal distances out of all frames'.

    Source: TS-LLaVA, arXiv 2411.11066.
    """

    grid: tuple[int, int] = (2, 3)
    sampled: int = 2880

    def __post_init__(self) -> None:
        _check_counts(self, "grid", *self.grid)
        _check_counts(self, "sampled", self.sampled)

    def compose(self, frames: np.ndarray) -> np.ndarray:
        return np.concatenate([resize_frames(tile(frames, *self.grid)[None], frames.shape[1:3]), frames])

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        thumbnail, patches = grid[0].flatten(0, 1), grid[1:].flatten(0, 2)
        n = min(self.sampled, len(patches))
        return torch.cat([thumbnail, patches[(2 * torch.arange(n) + 1) * len(patches) // (2 * n)]])

    def __str__(self) -> str:
        return "thumbnail-{}x{}-sampled_{}".format(*self.grid, self.sampled)


@dataclass(frozen=True)
class Merged:
    """All frames, of which runs of alike patches at one place become their mean, until `tokens` are left.

    The cuts between runs are where a patch is least like (cosine) the one before it. Tokens stand in the order of
    the runs' first patches. Source: token merging, arXiv 2210.09461; over time as in DyCoke, arXiv 2411.15024.
    """

    tokens: int = 3680

    def __post_init__(self) -> None:
        _check_counts(self, "tokens", self.tokens)

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        t, h, w, _ = grid.shape
        if self.tokens < h * w:
            raise SfllavaError(f"{self} needs at least the {h}x{w} = {h * w} patches of one frame")
        patches = grid.flatten(1, 2)
        new = torch.ones(t, h * w, dtype=torch.bool, device=grid.device)
        if self.tokens < t * h * w:
            alike = F.cosine_similarity(patches[1:].float(), patches[:-1].float(), dim=-1).flatten()
            least = alike.argsort(stable=True)[: self.tokens - h * w]
            new[1:] = torch.zeros_like(alike, dtype=torch.bool).index_fill_(0, least, True).unflatten(0, (t - 1, h * w))
        # number the runs in the order of their first patches, and carry the number along each place
        first = new.flatten().cumsum(0).unflatten(0, new.shape) - 1
        runs = torch.where(new, first, 0).cummax(0).values.flatten()
        sums = patches.new_zeros(int(new.sum()), patches.shape[-1], dtype=torch.float32)
        sums.index_add_(0, runs, patches.flatten(0, 1).float())
        return (sums / runs.bincount()[:, None]).to(grid.dtype)

    def __str__(self) -> str:
        return f"merged-{self.tokens}"


@dataclass(frozen=True)
class Keyframes:
    """The frames nearest to the centres of `keyframes` clusters of frame features, in time's order, then a pool.

    The choice does not depend on the question. Source: KTV, arXiv 2602.03615, which finds that better than choosing
    by similarity to the question; it clusters another vision model's features, this one the projected patches' mean.
    """

    keyframes: int = 6
    pool: str = "concat"

    def __post_init__(self) -> None:
        _check_counts(self, "keyframes", self.keyframes)
        if self.pool not in SLOW_POOLS:
            raise SfllavaError(f"no pool is called {self.pool!r}; there are {', '.join(SLOW_POOLS)}")

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        return Pool(self.pool)(grid[keyframes(grid.flatten(1, 2).mean(1), self.keyframes)])

    def __str__(self) -> str:
        return f"keyframes-{self.keyframes}frms_{self.pool}"


def keyframes(features: Tensor, n: int, rounds: int = 20) -> list[int]:
    """Indices, in order, of the frames nearest to n k-means centres of (T D) features; the same at every call."""
    x = F.normalize(features.float(), dim=-1)
    if len(x) <= n:
        return list(range(len(x)))
    # centres start far from one another: first the frame that is least like the mean, then the farthest in turn
    distances = (x - x.mean(0)).norm(dim=-1)
    centres = x[distances.argmax()][None]
    for _ in range(n - 1):
        centres = torch.cat([centres, x[torch.cdist(x, centres).amin(1).argmax()][None]])
    for _ in range(rounds):
        owner = torch.cdist(x, centres).argmin(1)
        counts = owner.bincount(minlength=n)[:, None]
        means = torch.zeros_like(centres).index_add_(0, owner, x) / counts.clamp(min=1)
        means = torch.where(counts > 0, means, centres)
        if torch.equal(means, centres):
            break
        centres = means
    chosen: list[int] = []
    for row in torch.cdist(centres, x):
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return sorted(chosen)


def _check_counts(method: object, name: str, *counts: int) -> None:
    if min(counts) < 1:
        raise SfllavaError(f"{type(method).__name__}: {name} needs numbers of at least 1, got {counts}")


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


_POOLED = ("spatial_1d_max_pool", "spatial_2d_avg_pool", "concat")
_FAST = ((1, 1), (1, 2), (2, 2), (2, 4), (3, 6), (4, 4), (6, 6), (8, 8))
_SLOW_SHARE = 2880 / 3680  # of the tokens, in the paper's default

# name -> (tokens wanted, frames, patches of a frame) -> what may fit
METHODS: dict[str, Callable[[int, int, int], Iterable[Aggregation]]] = {
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


def fit(method: str, tokens: int, frames: int = 50, h: int = 24, w: int = 24) -> Setting:
    """The setting of a method that comes nearest to `tokens` visual tokens from below, labelled with the method.

    Among SlowFast's that come within 5 % of the nearest, the one whose Slow pathway has the share that it has in the
    paper's default. Raises SfllavaError where none is small enough.
    """
    if method not in METHODS:
        raise SfllavaError(f"no method is called {method!r}; there are {', '.join(METHODS)}")
    sizes: list[tuple[int, Aggregation]] = []
    for aggregation in METHODS[method](tokens, frames, h * w):
        with contextlib.suppress(SfllavaError):  # a pool that this grid does not allow
            sizes.append((Setting(frames, aggregation).budget(h, w), aggregation))
    small = [(size, aggregation) for size, aggregation in sizes if size <= tokens]
    if not small:
        least = f"; its smallest has {min(size for size, _ in sizes)}" if sizes else ""
        raise SfllavaError(f"{method} has no setting of at most {tokens} tokens at {h}x{w} patches a frame{least}")
    most, largest = max(small, key=lambda found: found[0])
    if method != "slowfast":
        return Setting(frames, largest, method)
    shares = [
        (1 - frames * a.fast[0] * a.fast[1] / size, a)
        for size, a in small
        if size >= 0.95 * most and isinstance(a, SlowFast)
    ]
    return Setting(frames, min(shares, key=lambda found: abs(found[0] - _SLOW_SHARE))[1], method)
