"""`native`: how the model family itself processes a video, as a baseline for ablations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import check_grid
from sfllava.aggregators.methods import Method
from sfllava.aggregators.pools import Pool
from sfllava.aggregators.sources import TokenSource, markers, sources_of_parts
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class NativeFrames:
    """Frames (T H W 3) for the vision tower to encode in the family's own way, `per_image` frames at a time."""

    frames: Any
    per_image: int = 1

    def __len__(self) -> int:
        return -(-len(self.frames) // self.per_image)


class Unbound:
    """`native` before a model is known; `Setting.for_model` replaces it with the family's own aggregator."""

    def for_model(self, info: Any) -> Any:
        """Return the model's own aggregator."""
        return info.native

    def make_images(self, frames: np.ndarray) -> Any:
        """Raise: which images there are is known once a model is."""
        raise self._unbound()

    def __call__(self, grid: Tensor) -> Tensor:
        raise self._unbound()

    def _unbound(self) -> SfllavaError:
        return SfllavaError("native depends on the model: needed setting.for_model(model.info)")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unbound)

    def __hash__(self) -> int:
        return hash(Unbound)

    def __str__(self) -> str:
        return "native"


@dataclass(frozen=True)
class Native:
    """One pool over frames that are encoded one by one, as SlowFast encodes them.

    Attributes:
        pool: Name of the pool.
        newline: Whether the model's newline embedding comes after the last frame.
    """

    pool: str = "concat"
    newline: bool = False

    def __call__(self, grid: Tensor) -> Tensor:
        return torch.cat(list(self.token_parts(grid).values()))

    def token_parts(self, grid: Tensor) -> dict[str, Tensor]:
        """Pool the frames (T h w D); the newline is zeros here, and the encoder fills in the model's embedding."""
        check_grid(grid)
        parts = {"all frames": Pool(self.pool)(grid)}
        return parts | ({"newline": grid.new_zeros(1, grid.shape[-1])} if self.newline else {})

    def token_sources(self, grid: Tensor, frames: int) -> list[TokenSource]:
        """Map each token of the frames to its patches; the newline comes from no patch."""
        return sources_of_parts({"all frames": Pool(self.pool)(markers(grid))}, grid)

    def __str__(self) -> str:
        return "native"


@dataclass(frozen=True)
class NativeEncoding:
    """All patches of images that the vision tower encodes in the family's own way, such as from pairs of frames.

    Attributes:
        grid: Number of patches (h, w) of an image.
        frames_per_image: Number of frames in an image.
    """

    grid: tuple[int, int]
    frames_per_image: int = 1

    def make_images(self, frames: np.ndarray) -> NativeFrames:
        """Mark frames (T H W 3) for `VideoLM.encode` to encode in the family's own way."""
        return NativeFrames(frames, self.frames_per_image)

    def image_count(self, frames: int) -> int:
        """Count the images made of a number of frames; the last frame is repeated to fill the last image."""
        return -(-frames // self.frames_per_image)

    def __call__(self, grid: Tensor) -> Tensor:
        return next(iter(self.token_parts(grid).values()))

    def token_parts(self, grid: Tensor) -> dict[str, Tensor]:
        """Return all patches of (T h w D). A meta tensor only counts tokens: its grid may be that of single frames."""
        check_grid(grid)
        if not grid.is_meta and grid.shape[1:3] != self.grid:
            raise SfllavaError(
                f"needed images of {self.grid[0]}x{self.grid[1]} patches, got {grid.shape[1]}x{grid.shape[2]}: encode "
                "setting.images(frames), with the setting from setting.for_model(model.info)"
            )
        if grid.is_meta:
            return {"all frames": grid.new_empty(len(grid) * self.grid[0] * self.grid[1], grid.shape[-1])}
        return {"all frames": grid.flatten(0, 2)}

    def token_sources(self, grid: Tensor, frames: int) -> list[TokenSource]:
        """Map each token to its patch and, in equal shares, to the frames of its image."""
        images, (h, w) = self.image_count(frames), self.grid
        index = torch.arange(images).repeat_interleave(h * w)
        shares = torch.zeros(images, frames)
        for image in range(images):
            own = range(image * self.frames_per_image, min(frames, (image + 1) * self.frames_per_image))
            shares[image, own] = 1 / len(own)
        patches = torch.eye(h * w).repeat(images, 1).unflatten(1, (h, w))
        return [TokenSource("all frames", 0, shares[index], patches)]

    def __str__(self) -> str:
        return "native"


METHOD = Method(pattern="native", usage="native (the model's own processing)", make=Unbound, rank=80)
