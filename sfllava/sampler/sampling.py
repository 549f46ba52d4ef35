"""Which frames of a video are sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfllava.types import SfllavaError


def sample_indices(total: int, frames: int) -> np.ndarray:
    """Indices (min(total, frames)) of the middles of equal segments (arXiv 2407.15841's published sampling)."""
    if frames < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    if total < 1:
        raise SfllavaError(f"needed a video of at least 1 frame, got {total}")
    n = min(total, frames)
    bounds = np.round((total - 1) / n * np.arange(n + 1)).astype(np.int64)  # half to even, as published
    return (bounds[:-1] + bounds[1:]) // 2


def union_indices(total: int, frames: int | Sequence[int]) -> np.ndarray:
    """The indices of one sample, or of several together."""
    if isinstance(frames, int):
        return sample_indices(total, frames)
    return np.unique(np.concatenate([sample_indices(total, n) for n in frames]))
