"""Select the frames to sample from a video."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfllava.catalogue import unknown_name
from sfllava.types import Clip, SfllavaError

PUBLISHED = "published"
_FPS = re.compile(r"fps:([0-9]+(?:\.[0-9]+)?)")


class SamplingError(SfllavaError):
    """A video has no frame rate, or a clip is outside the video; the message does not name the video."""


@dataclass(frozen=True)
class Sample:
    """The number of frames to sample from a video, and the rule that selects them.

    Attributes:
        frames: the number of frames; for an `fps` rule, the maximum.
        rule: a name in `RULES`, or `fps:N` for N frames per second.
    """

    frames: int
    rule: str = PUBLISHED

    def __post_init__(self) -> None:
        if isinstance(self.frames, bool) or not isinstance(self.frames, int) or self.frames < 1:
            raise SfllavaError(f"frames must be a whole number of at least 1, got {self.frames!r}")
        check_rule(self.rule)

    def indices(self, total: int, fps: float | None = None) -> np.ndarray:
        """Return the indices of the sampled frames.

        Args:
            total: the number of frames in the video or clip.
            fps: frames per second; only an `fps` rule needs it.

        Returns:
            (n) int64, in ascending order; short videos may repeat an index.

        Raises:
            SfllavaError: `total` is below 1, or the rule needs a frame rate and there is none.
        """
        if total < 1:
            raise SfllavaError(f"needed a video of at least 1 frame, got {total}")
        if rate := _FPS.fullmatch(self.rule):
            return _per_second(total, self.frames, float(rate[1]), fps)
        return RULES[self.rule](total, self.frames)

    def count(self, total: int | None) -> int:
        """Return how many frames are sampled from `total` frames, or from a video with enough frames (None).

        For an `fps` rule this is the maximum, since the frame rate is unknown.
        """
        repeats = self.rule in RULES and self.rule != PUBLISHED  # these rules repeat frames of short videos
        return self.frames if total is None or repeats else min(self.frames, total)


@dataclass(frozen=True)
class FrameIndices:
    """Frames that are named one by one, such as those chosen for a question; takes the place of a `Sample`.

    Attributes:
        indices: of the frames in the video, from 0, in ascending order; they may repeat.
    """

    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        found = self.indices
        if not found or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in found):
            raise SfllavaError(f"needed one or more indices of frames, from 0, got {list(found[:8])}")
        object.__setattr__(self, "indices", tuple(sorted(found)))

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.indices)

    def within(self, first: int, last: int) -> np.ndarray:
        """Return the indices (n) int64; raise SamplingError if one is not from the frame `first` to `last`."""
        if outside := [i for i in self.indices if not first <= i <= last]:
            raise SamplingError(f"has the frames {first} to {last}, which frame {outside[0]} is not among")
        return np.array(self.indices, np.int64)


AnySample = Sample | FrameIndices


def sample_indices(total: int, frames: int) -> np.ndarray:
    """Return the middle frame of each of several equal segments of a video.

    This is the rule of the published SlowFast-LLaVA code (arXiv 2407.15841).

    Args:
        total: the number of frames in the video.
        frames: the number of frames to sample.

    Returns:
        (min(total, frames)) int64, in ascending order. Very short videos repeat an index.

    Raises:
        SfllavaError: `total` or `frames` is below 1.
    """
    return Sample(frames).indices(total)


def check_rule(name: str) -> None:
    """Raise SfllavaError if no frame rule has this name."""
    if name not in RULES and not ((rate := _FPS.fullmatch(name)) and float(rate[1]) > 0):
        raise SfllavaError(unknown_name("frame rule", name, RULES, ", fps:N"))


def parse_rule(text: str) -> tuple[str, int | None]:
    """Split `fps:1,max:64` into the rule and the maximum number of frames; other rules have no maximum.

    Raises:
        SfllavaError: no frame rule has this name.
    """
    rule, comma, most = text.partition(",max:")
    check_rule(rule)
    if not comma:
        return rule, None
    if not _FPS.fullmatch(rule) or not most.isdecimal() or int(most) < 1:
        raise SfllavaError(f"frame rule {text!r}: needed fps:N,max:M with a whole number M of at least 1")
    return rule, int(most)


def clip_range(total: int, fps: float | None, clip: Clip | None) -> tuple[int, int]:
    """Return the first and the last frame of a clip.

    Bounds in seconds are converted to frames with the frame rate, rounded half to even. An end after the last frame
    becomes the last frame.

    Args:
        total: the number of frames in the video.
        fps: frames per second of the video; None for a folder of images.
        clip: the clip; None for the whole video.

    Returns:
        The first and the last index, both inclusive.

    Raises:
        SamplingError: the clip starts after the end of the video, or there is no frame rate.
    """
    if clip is None or (clip.start is None and clip.end is None):
        return 0, total - 1
    rate = fps or clip.fps
    if not rate:
        raise SamplingError(f"has no frame rate, which the clip from {clip} needs")
    first = 0 if clip.start is None else max(0, round(clip.start * rate))
    if first == total and clip.start is not None and clip.start < total / rate:  # within the last half frame
        first = total - 1
    last = total - 1 if clip.end is None else min(total - 1, round(clip.end * rate))
    if first > last:
        raise SamplingError(f"the clip from {clip} is outside the video, which has {total / rate:g} s")
    return first, last


@dataclass(frozen=True)
class Selection:
    """The frames to read from a video or clip: those of one sample, or of several samples together.

    Attributes:
        samples: one sample or several.
        clip: the part of the video to sample; None for the whole video.
    """

    samples: AnySample | Sequence[AnySample]
    clip: Clip | None = None

    def select(self, total: int, fps: float | None) -> tuple[np.ndarray, tuple[int, int]]:
        """Select the frames of one video.

        Args:
            total: the number of frames in the video.
            fps: frames per second of the video; None for a folder of images.

        Returns:
            int64 indices in ascending order, without duplicates if there are several samples; and the first and last
            frame of the clip.

        Raises:
            SamplingError: the clip is outside the video, or there is no frame rate.
        """
        first, last = clip_range(total, fps, self.clip)
        fps = fps or (self.clip.fps if self.clip else None)
        return union_indices(self.samples, first, last, fps), (first, last)


def union_indices(
    samples: AnySample | Sequence[AnySample], first: int, last: int, fps: float | None = None
) -> np.ndarray:
    """Return the indices of one sample of a clip, or of several samples together.

    Args:
        samples: one sample or several.
        first: the first frame of the clip.
        last: the last frame of the clip.
        fps: frames per second of the video.

    Returns:
        int64, in ascending order, without duplicates if there are several samples.
    """
    if isinstance(samples, Sample):
        return first + samples.indices(last - first + 1, fps)
    if isinstance(samples, FrameIndices):
        return samples.within(first, last)
    return np.unique(np.concatenate([union_indices(sample, first, last, fps) for sample in samples]))


def to_samples(frames: Any) -> AnySample | list[AnySample]:
    """Convert a number of frames to a sample, or a sequence of numbers to a list of samples."""
    if isinstance(frames, AnySample):
        return frames
    if isinstance(frames, int):
        return Sample(frames)
    found = [one if isinstance(one, AnySample) else Sample(one) for one in frames]
    if not found:
        raise SfllavaError(f"frames must be a whole number of at least 1, got {frames!r}")
    return found


def _published(total: int, frames: int) -> np.ndarray:
    n = min(total, frames)
    bounds = np.round((total - 1) / n * np.arange(n + 1)).astype(np.int64)  # half to even, as published
    return (bounds[:-1] + bounds[1:]) // 2


def _lmms_eval(total: int, frames: int) -> np.ndarray:
    """Equal steps from the first to the last frame, rounded down."""
    return np.linspace(0, total - 1, frames).astype(np.int64)


def _vlmevalkit(total: int, frames: int) -> np.ndarray:
    """Equal steps without both ends, rounded down."""
    step = total / (frames + 1)
    return np.array([int(step * i) for i in range(1, frames + 1)], np.int64)


def _mvbench(total: int, frames: int) -> np.ndarray:
    """The middle of equal segments; the start of each segment is rounded half to even."""
    segment = (total - 1) / frames
    return np.array([int(segment / 2 + np.round(segment * i)) for i in range(frames)], np.int64)


def _per_second(total: int, frames: int, rate: float, fps: float | None) -> np.ndarray:
    """Frames at a fixed step from the first; `frames` equal steps if these are too many."""
    if not fps:
        raise SamplingError(f"has no frame rate, which the frame rule fps:{rate:g} needs")
    found = np.arange(0, total, max(1, round(fps / rate)))
    return found if len(found) <= frames else _lmms_eval(total, frames)


RULES: dict[str, Callable[[int, int], np.ndarray]] = {
    PUBLISHED: _published,
    "lmms-eval": _lmms_eval,
    "vlmevalkit": _vlmevalkit,
    "mvbench": _mvbench,
}
"""Rules that need no frame rate, by name: the rule of the published SlowFast-LLaVA code and those of other tools."""
