"""A thumbnail of tiled frames, then sampled patches of all frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import check_counts, check_grid
from sfllava.aggregators.image_grid import tile, tiled_sources
from sfllava.aggregators.methods import COUNT, Candidates, Method
from sfllava.aggregators.sources import TokenSource, markers, sources_of_parts
from sfllava.sampler.images import resize_frames


@dataclass(frozen=True)
class Thumbnail:
    """One image of tiled frames, then patches at equal distances out of those of all frames.

    Source: TS-LLaVA, arXiv 2411.11066.

    Attributes:
        grid: rows and columns of frames in the image.
        sampled: patches that are sampled.
    """

    grid: tuple[int, int] = (2, 3)
    sampled: int = 2880

    def __post_init__(self) -> None:
        check_counts(self, "grid", *self.grid)
        check_counts(self, "sampled", self.sampled)

    def make_images(self, frames: np.ndarray) -> np.ndarray:
        """(T H W 3) -> (1 + T, H, W, 3): the thumbnail, then the frames."""
        return np.concatenate([resize_frames(tile(frames, *self.grid)[None], frames.shape[1:3]), frames])

    def image_count(self, frames: int) -> int:
        """Count the thumbnail and the frames."""
        return 1 + frames

    def __call__(self, grid: Tensor) -> Tensor:
        check_grid(grid)
        return torch.cat([grid[0].flatten(0, 1), self._sample(grid[1:])])

    def token_sources(self, grid: Tensor, frames: int) -> list[TokenSource]:
        """Map the thumbnail's and the sampled patches to frames."""
        _, h, w, _ = grid.shape
        thumbnail = tiled_sources("thumbnail", 0, self.grid, frames, h, w)
        (sampled,) = sources_of_parts({"sampled": self._sample(markers(grid[1:]))}, grid[1:])
        return [thumbnail, replace(sampled, first=h * w)]

    def _sample(self, grid: Tensor) -> Tensor:
        patches = grid.flatten(0, 2)
        n = min(self.sampled, len(patches))
        return patches[(2 * torch.arange(n) + 1) * len(patches) // (2 * n)]

    def __str__(self) -> str:
        return "thumbnail-{}x{}-sampled_{}".format(*self.grid, self.sampled)


METHOD = Method(
    pattern=rf"thumbnail-{COUNT}x{COUNT}-sampled_{COUNT}",
    usage="thumbnail-{ROWS}x{COLUMNS}-sampled_{TOKENS}",
    make=lambda rows, columns, sampled: Thumbnail((int(rows), int(columns)), int(sampled)),
    budgets={
        "thumbnail": Candidates(
            lambda tokens, frames, patches: [Thumbnail((2, 3), tokens - patches)] if tokens > patches else []
        )
    },
    rank=2,
)
