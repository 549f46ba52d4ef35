"""Frames tiled into one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.sources import TokenSource
from sfllava.sampler.images import resize_frames
from sfllava.types import SfllavaError


def tiled_frames(frames: int, tiles: int) -> np.ndarray:
    """Return which of `frames` frames are tiled: at equal distances; those of a short video repeat."""
    return (2 * np.arange(tiles) + 1) * frames // (2 * tiles)


def tile(frames: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Tile frames (T H W 3) row by row into one image (rows*H columns*W 3)."""
    chosen = frames[tiled_frames(len(frames), rows * columns)]
    return chosen.reshape(rows, columns, *frames.shape[1:]).swapaxes(1, 2).reshape(rows * frames.shape[1], -1, 3)


def tiled_sources(
    name: str, first: int, grid: tuple[int, int], frames: int, h: int, w: int, cuts: tuple[int, int] = (1, 1)
) -> TokenSource:
    """Map the patches of an image of tiled frames back to the frames.

    Args:
        name: the part.
        first: index of its first token.
        grid: rows and columns of frames in the image.
        frames: sampled frames, of which some are in the image.
        h: rows of patches in an image that the vision tower encodes.
        w: columns of patches in such an image.
        cuts: rows and columns of such images into which the tiled image is cut.

    Returns:
        The source of all patches, image by image.

    Raises:
        SfllavaError: the border between two frames goes through a patch.
    """
    (rows, columns), (high, wide) = grid, (cuts[0] * h, cuts[1] * w)
    if high % rows or wide % columns:
        raise SfllavaError(
            f"{rows}x{columns} tiled frames cannot be mapped back: they do not divide {high}x{wide} patches evenly"
        )
    patches = torch.arange(high * wide).reshape(cuts[0], h, cuts[1], w).swapaxes(1, 2).flatten()
    y, x = patches // wide, patches % wide
    cell_high, cell_wide = high // rows, wide // columns
    chosen = torch.as_tensor(tiled_frames(frames, rows * columns))[y // cell_high * columns + x // cell_wide]
    down, across = interval_shares(cell_high, h)[y % cell_high], interval_shares(cell_wide, w)[x % cell_wide]
    return TokenSource(name, first, torch.eye(frames)[chosen], down[:, :, None] * across[:, None, :])


def interval_shares(cells: int, patches: int) -> Tensor:
    """Return (cells patches) the share of each patch in each cell, when both divide one length equally."""
    cell, patch = torch.arange(cells)[:, None] * patches, torch.arange(patches)[None] * cells
    overlap = torch.minimum(cell + patches, patch + cells) - torch.maximum(cell, patch)
    return overlap.clamp(min=0) / patches


@dataclass(frozen=True)
class ImageGrid:
    """Frames tiled into one image: encoded as a whole, and optionally also cut into tiles.

    Source: IG-VLM, arXiv 2403.18406, which tiles six frames and lets LLaVA-NeXT also cut the image into 2x2.

    Attributes:
        grid: rows and columns of frames.
        tiles: rows and columns of tiles; (0, 0) for none.
    """

    grid: tuple[int, int] = (2, 3)
    tiles: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        check_counts(self, "grid", *self.grid)
        if self.tiles != (0, 0):
            check_counts(self, "tiles", *self.tiles)

    def make_images(self, frames: np.ndarray) -> np.ndarray:
        """(T H W 3) -> (1 + tiles, H, W, 3): the whole image, then its tiles row by row."""
        size, (rows, columns) = frames.shape[1:3], self.tiles
        image = tile(frames, *self.grid)
        parts = [resize_frames(image[None], size)]
        if rows:
            large = resize_frames(image[None], (rows * size[0], columns * size[1]))[0]
            cut = large.reshape(rows, size[0], columns, size[1], 3).swapaxes(1, 2)
            parts.append(cut.reshape(rows * columns, *size, 3))
        return np.concatenate(parts)

    def image_count(self, frames: int) -> int:
        """Count the whole image and its tiles."""
        return 1 + self.tiles[0] * self.tiles[1]

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        return grid.flatten(0, 2)

    def token_sources(self, grid: Tensor, frames: int) -> list[TokenSource]:
        """Map the whole image's and the tiles' patches to frames."""
        _, h, w, _ = grid.shape
        found = [tiled_sources("whole", 0, self.grid, frames, h, w)]
        if self.tiles != (0, 0):
            found.append(tiled_sources("tiles", h * w, self.grid, frames, h, w, self.tiles))
        return found

    def __str__(self) -> str:
        tiles = "-tiles_{}x{}".format(*self.tiles) if self.tiles[0] else ""
        return "image_grid-{}x{}".format(*self.grid) + tiles


METHOD = Method(
    pattern=rf"image_grid-{COUNT}x{COUNT}(?:-tiles_{COUNT}x{COUNT})?",
    usage="image_grid-{ROWS}x{COLUMNS}[-tiles_{ROWS}x{COLUMNS}]",
    make=lambda a, b, c, d: ImageGrid((int(a), int(b)), (int(c or 0), int(d or 0))),
    budgets={
        "image grid": Candidates(
            lambda tokens, frames, patches: [
                ImageGrid((2, 3), tiles) for tiles in ((0, 0), (1, 2), (2, 2), (2, 3), (3, 3))
            ]
        )
    },
    rank=1,
)
