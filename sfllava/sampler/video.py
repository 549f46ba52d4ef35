"""The frames sampled from one video, and where they came from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sfllava.display.objects import MOST_FRAMES, card, evenly_spaced, file_name, strip, text, time_of
from sfllava.sampler.sampling import AnySample, Sample, union_indices
from sfllava.types import SfllavaError

Decoder = Literal["auto", "decord", "pyav"]


class VideoError(SfllavaError):
    """A video cannot be read; the message names the file."""


class ClipError(VideoError):
    """A video can be read, but it has no such clip, or no frame rate; another decoder would not help."""


@dataclass(frozen=True)
class Video:
    """Frames sampled from one video.

    Args:
        path: the file or folder.
        frames: (T H W 3) uint8, RGB, upright.
        indices: (T) int64, the index of each frame in the source.
        pts_seconds: (T) float64, when each frame is shown; NaN where the source has no clock (a folder of images).
        fps: frames per second of the source, None if it has none.
        size: (height, width) of the source, upright.
        total: the number of frames in the source that can be decoded.
        decoder: what decoded it: `decord`, `pyav` or `images`.
        damage: what is wrong with the file, where only a part of it could be decoded; else empty.
        span: the first and the last frame of the sampled clip; None for the whole video.
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
    span: tuple[int, int] | None = None

    def positions(self, frames: int | AnySample) -> np.ndarray:
        """Return the positions in `self.frames` of one sample.

        Args:
            frames: the number of frames of the sample, or the sample, or frames named one by one.

        Returns:
            (n) int64.

        Raises:
            SfllavaError: the video was not read for such a sample.
        """
        first, last = self.span or (0, self.total - 1)
        sample = Sample(frames) if isinstance(frames, int) else frames
        wanted = union_indices(sample, first, last, self.fps)
        found = np.searchsorted(self.indices, wanted).clip(max=len(self.indices) - 1)
        if not np.array_equal(self.indices[found], wanted):
            raise SfllavaError(f"{self.path}: was not read for a sample of {sample.frames} frames")
        return found

    def __repr__(self) -> str:
        height, width = self.frames.shape[1:3]
        return f"Video({self.path!r}, {len(self.frames)} of {self.total} frames, {height}x{width}, {self.decoder!r})"

    def _repr_html_(self) -> str:
        damage = text(self.damage, soft=True) if self.damage else ""
        return card("Video", file_name(self.path), self.as_strip(), damage, facts=self.facts())

    def facts(self) -> list[str]:
        """Return what a notebook says of the video next to its name."""
        (height, width), (h, w) = self.size, self.frames.shape[1:3]
        rate = f", {self.fps:.4g} per second" if self.fps else ""
        known = [f"{len(self.frames):,} of {self.total:,} frames{rate}", f"{width} × {height} pixels"]
        return known + ([f"read as {w} × {h}"] if (h, w) != (height, width) else []) + [self.decoder]

    def as_strip(self, marked: Collection[int] = ()) -> str:
        """Return some of the frames, with their times, as HTML; those with their index in `marked` come first.

        They are outlined, unless all are marked.
        """
        first = [i for i, index in enumerate(self.indices) if index in marked]
        first = [] if len(first) == len(self.frames) else [first[i] for i in evenly_spaced(len(first))]
        others = [i for i in range(len(self.frames)) if i not in set(first)]
        shown = sorted([*first, *(others[i] for i in evenly_spaced(len(others), MOST_FRAMES - len(first)))])
        captions = [time_of(float(self.pts_seconds[i]), int(self.indices[i])) for i in shown]
        return strip(self.frames[shown], captions, [shown.index(i) for i in first])
