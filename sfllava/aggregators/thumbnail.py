"""A thumbnail of tiled frames, then sampled patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.aggregators.image_grid import tile
from sfllava.sampler.images import resize_frames


@dataclass(frozen=True)
class Thumbnail:
    """One image of tiled frames, then `sampled` patches at equal distances out of all frames'.

    Source: TS-LLaVA, arXiv 2411.11066.
    """

    grid: tuple[int, int] = (2, 3)
    sampled: int = 2880

    def __post_init__(self) -> None:
        check_counts(self, "grid", *self.grid)
        check_counts(self, "sampled", self.sampled)

    def make_images(self, frames: np.ndarray) -> np.ndarray:
        return np.concatenate([resize_frames(tile(frames, *self.grid)[None], frames.shape[1:3]), frames])

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        thumbnail, patches = grid[0].flatten(0, 1), grid[1:].flatten(0, 2)
        n = min(self.sampled, len(patches))
        return torch.cat([thumbnail, patches[(2 * torch.arange(n) + 1) * len(patches) // (2 * n)]])

    def __str__(self) -> str:
        return "thumbnail-{}x{}-sampled_{}".format(*self.grid, self.sampled)
