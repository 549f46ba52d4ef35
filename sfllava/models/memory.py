"""The sizes of batches, and retrying with smaller ones where memory is too small.

accelerate's `find_executable_batch_size` does not return the size that worked, ignores MemoryError, and clears the
cache while the error still holds the failed tensors.
"""

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
# What more patches compute no longer fits a core's cache: 13 to 18 % slower with four times as many
_CPU_PATCHES = 2 * 24 * 24


def frames_per_batch(device: torch.device, patches: int, otherwise: int) -> int:
    """Return how many frames of so many patches a vision tower encodes at a time; not on a CPU, `otherwise`."""
    return max(1, _CPU_PATCHES // max(1, patches)) if device.type == "cpu" else otherwise


def retry_with_smaller_batch(run: Callable[[int], T], size: int, what: str) -> tuple[T, int]:
    """Call `run` with a batch size, and halve the size until the batch fits the memory.

    Args:
        run: Takes the batch size.
        size: The first size to try.
        what: The items of a batch, for the warning, such as "frames".

    Returns:
        The result of `run`, and the size that worked.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: The error of `run` where even a batch of 1 does not fit.
    """
    while True:
        try:
            return run(size), size
        except Exception as error:
            if size == 1 or not out_of_memory(error):
                raise
            line = " ".join(str(error).split())[:160]
        # here and not in the handler: while the error exists, it holds the tensors of the failed attempt
        size //= 2
        log.warning("the device's memory is too small for more: going on with %d %s at a time (%s)", size, what, line)
        free_memory()


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the device or of the host was too small."""
    # for host memory torch raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def free_memory() -> None:
    """Release the memory of a failed attempt."""
    gc.collect()
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # a broken device raises again where it is next used
            torch.cuda.empty_cache()


def pinned_array(shape: tuple[int, ...]) -> np.ndarray:
    """Return an empty uint8 array in page-locked memory, from which a GPU copies asynchronously."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
