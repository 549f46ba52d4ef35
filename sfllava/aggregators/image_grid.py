"""Frames tiled into one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.sampler.images import resize_frames


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
        check_counts(self, "grid", *self.grid)
        if self.tiles != (0, 0):
            check_counts(self, "tiles", *self.tiles)

    def make_images(self, frames: np.ndarray) -> np.ndarray:
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
