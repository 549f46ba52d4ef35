"""Which frames of a video are sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfllava.types import SfllavaError


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
    if frames < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    if total < 1:
        raise SfllavaError(f"needed a video of at least 1 frame, got {total}")
    n = min(total, frames)
    bounds = np.round((total - 1) / n * np.arange(n + 1)).astype(np.int64)  # half to even, as published
    return (bounds[:-1] + bounds[1:]) // 2


def union_indices(total: int, frames: int | Sequence[int]) -> np.ndarray:
    """Return the indices of one sample, or of several samples together.

    Args:
        total: the number of frames in the video.
        frames: the number of frames of the sample, or of each sample.

    Returns:
        int64, in ascending order; of several samples each index once.

    Raises:
        SfllavaError: a number is below 1.
    """
    if isinstance(frames, int):
        return sample_indices(total, frames)
    return np.unique(np.concatenate([sample_indices(total, n) for n in frames]))
