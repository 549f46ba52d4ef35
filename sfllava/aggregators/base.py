"""What every aggregator is: a callable from patch grid to tokens, and what else can be asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.types import SfllavaError

Aggregation = Callable[[Any], Any]
"""Patch grid (T h w D) -> visual tokens (N D): a `SlowFast`, a `Pool`, or a callable of your own."""


def name_of(aggregation: object) -> str:
    """The name of an aggregation or pool; of a user's own, one that is the same in the next process."""
    name = getattr(aggregation, "__qualname__", None)
    return name.split("<locals>.")[-1] if isinstance(name, str) else re.sub(r" at 0x[0-9a-f]+", "", str(aggregation))


def identity_key(value: object) -> object:
    """A key that tells an aggregation or pool from others: its value, or the object itself where it has no hash."""
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return type(value), value


class _Itself:
    # holds the object: the id of one that is gone may become another's
    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def check_grid(grid: Tensor) -> None:
    """Raise SfllavaError unless a patch grid is (T h w D) with no empty axis."""
    if grid.ndim != 4 or 0 in grid.shape:
        raise SfllavaError(f"needed a patch grid of shape (T h w D) with no empty axis, got {tuple(grid.shape)}")


def token_count(aggregation: Callable[[Tensor], Tensor], frames: int, h: int = 24, w: int = 24) -> int:
    """Visual tokens that `aggregation` makes of `frames` frames of `h` x `w` patches, by running it on shapes alone."""
    if frames < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    if compose := getattr(aggregation, "make_images", None):
        frames = len(compose(np.zeros((frames, 4, 4, 3), np.uint8)))
    try:
        return aggregation(torch.empty(frames, h, w, 1, device="meta")).shape[0]
    except SfllavaError:
        raise
    except Exception:  # one that looks at values
        return aggregation(torch.zeros(frames, h, w, 1)).shape[0]


def check_counts(method: object, name: str, *counts: int) -> None:
    if min(counts) < 1:
        raise SfllavaError(f"{type(method).__name__}: {name} needs numbers of at least 1, got {counts}")
