"""What to do where a device's memory is too small: the same in smaller groups."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

log = logging.getLogger(__name__)
T = TypeVar("T")


def retry_with_smaller_batch(run: Callable[[int], T], size: int, what: str) -> tuple[T, int]:
    """(run(size), size), where that is too much for the device's memory with half the size, and so on down to 1.

    Raises the error of the memory where 1 is too much.
    """
    while True:
        try:
            return run(size), size
        except Exception as error:
            if size == 1 or not out_of_memory(error):
                raise
            line = " ".join(str(error).split())[:160]
        # here, not above: as long as the error is held, so are the tensors of what failed
        size //= 2
        log.warning("the device's memory is too small for more: going on with %d %s at a time (%s)", size, what, line)
        free_memory()


def out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory, or the host's, was too small."""
    # of the host's memory torch says so in a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def free_memory() -> None:
    """Give back what the failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # a device that is broken says so to whoever uses it next
            torch.cuda.empty_cache()


def pinned_array(shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array in page-locked memory, out of which a GPU copies by itself."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
