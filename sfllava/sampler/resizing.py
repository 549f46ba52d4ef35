"""Frames at the model's size."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

RESIZE_BYTES = 1 << 28  # bytes of frames that wait to be resized


def resize_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T H W 3) uint8 -> (T h w 3) uint8 by PIL's default resize, whatever the aspect; size is (h, w)."""
    from PIL import Image

    if frames.shape[1:3] == size:
        return frames
    out = np.empty((len(frames), *size, 3), np.uint8)

    def one(i: int) -> None:  # PIL releases the GIL while it resizes
        out[i] = np.asarray(Image.fromarray(frames[i]).resize((size[1], size[0])))

    list(_threads().map(one, range(len(frames))))
    return out


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), "sfllava-resize")
