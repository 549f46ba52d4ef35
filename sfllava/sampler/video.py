"""The frames sampled from one video, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sfllava.sampler.sampling import sample_indices
from sfllava.types import SfllavaError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
Decoder = Literal["auto", "decord", "pyav"]


class VideoError(SfllavaError):
    """A video that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Video:
    """Frames sampled from one video.

    frames: (T H W 3) uint8, RGB, upright. indices: (T) which frames of the `total`. pts_seconds: (T) when
    each is shown, NaN where the source has no clock (a folder of images). fps: frames a second, or None.
    size: (height, width) of the source, upright. total: frames that the source has (that can be decoded).
    """

    path: str
    frames: np.ndarray
    indices: np.ndarray
    pts_seconds: np.ndarray
    fps: float | None
    size: tuple[int, int]
    total: int
    decoder: str
    damage: str = ""
    """What is wrong with the file, where only a part of it could be decoded."""

    def positions(self, frames: int) -> np.ndarray:
        """Which of the frames at hand (T) a sample of `frames` frames has. Raises SfllavaError if it has others."""
        wanted = sample_indices(self.total, frames)
        found = np.searchsorted(self.indices, wanted).clip(max=len(self.indices) - 1)
        if not np.array_equal(self.indices[found], wanted):
            raise SfllavaError(f"{self.path}: was not read for a sample of {frames} frames")
        return found
