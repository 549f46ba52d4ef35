"""The interface of an aggregator, with defaults for a plain callable.

An aggregator turns a patch grid (T h w D) into visual tokens (N D): T images of h rows and w columns of patches, each
patch with D features. Any callable will do. To replace the default of a function below, an aggregator defines a method
or attribute of the same name: `make_images`, `image_count`, `token_parts`, `prefix_key`, `detailed_frames`,
`needs_features`, `with_frames`, `with_tiers` (and `counts`), or `token_sources` (see `sources.py`). With an attribute
`needs` it gets more of the vision tower than the features (see `tower.py`). The rest of the package calls these
functions and does not depend on the class of an aggregator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.tower import check_needs, grid_for, tower_needs, with_outputs
from sfllava.types import SfllavaError


class Aggregator(Protocol):
    """Patch grid (T h w D) -> visual tokens (N D): a `SlowFast`, a `Pool`, or any callable."""

    def __call__(self, grid: Tensor, /) -> Tensor: ...


def name_of(aggregator: object) -> str:
    """Return the name of an aggregator, without memory addresses: it is the same in every process."""
    name = getattr(aggregator, "__qualname__", None)
    return name.split("<locals>.")[-1] if isinstance(name, str) else re.sub(r" at 0x[0-9a-f]+", "", str(aggregator))


def identity_key(aggregator: object) -> object:
    """Return a key that is equal for equal aggregators; one that cannot be hashed equals only itself."""
    try:
        hash(aggregator)
    except TypeError:
        return _ById(aggregator)
    return type(aggregator), aggregator


class _ById:
    """Compares by identity. Keeps a reference to the object, because the id of a deleted one may be reused."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def for_model(aggregator: Any, info: Any) -> Any:
    """Return the aggregator for one model (`model.info`): `native` becomes the model's own, others stay as they are.

    Raises:
        SfllavaError: it needs what the model's vision tower does not give.
    """
    check_needs(aggregator, info)
    return aggregator.for_model(info) if hasattr(aggregator, "for_model") else aggregator


def makes_images(aggregator: object) -> bool:
    """Return whether the vision tower encodes images made from the frames, instead of the frames themselves."""
    return hasattr(aggregator, "make_images")


def make_images(aggregator: Any, frames: Any) -> Any:
    """Return the images that the vision tower encodes.

    Args:
        aggregator: any aggregator.
        frames: uint8 (T H W 3).

    Returns:
        uint8 (T' H W 3), by default `frames` itself, or `TowerFrames` where the aggregator needs more of the tower.
    """
    if makes_images(aggregator):
        return aggregator.make_images(frames)
    return with_outputs(frames, tower_needs(aggregator))


def image_count(aggregator: Any, frames: int) -> int:
    """Return how many images the vision tower encodes for `frames` frames."""
    if hasattr(aggregator, "image_count"):
        return aggregator.image_count(frames)
    if makes_images(aggregator):  # it does not define image_count: count on tiny frames
        return len(aggregator.make_images(np.zeros((frames, 4, 4, 3), np.uint8)))
    return frames


def token_parts(aggregator: Any, grid: Any) -> Mapping[str, Tensor]:
    """Split the visual tokens of a patch grid (T h w D) into named parts, in order: "slow" and "fast", or one part."""
    grid = grid_for(aggregator, grid)
    return aggregator.token_parts(grid) if hasattr(aggregator, "token_parts") else {"all frames": aggregator(grid)}


def part_counts(aggregator: Any, frames: int, h: int = 24, w: int = 24) -> dict[str, int]:
    """Count the visual tokens of each part without computing them.

    Args:
        aggregator: any aggregator.
        frames: number of sampled frames.
        h: rows of patches in an image.
        w: columns of patches in an image.

    Returns:
        Number of tokens by name of the part, in the order of the tokens.

    Raises:
        SfllavaError: `frames` is below 1, or the aggregator cannot take this grid.
    """
    if frames < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    shape = (image_count(aggregator, frames), h, w, 1)
    try:
        parts = token_parts(aggregator, torch.empty(shape, device="meta"))
        return {name: len(tokens) for name, tokens in parts.items()}
    except SfllavaError:
        raise
    except Exception:  # an aggregator that reads values cannot run on meta tensors
        return {name: len(tokens) for name, tokens in token_parts(aggregator, torch.zeros(shape)).items()}


def token_count(aggregator: Any, frames: int, h: int = 24, w: int = 24) -> int:
    """Count the visual tokens of all parts without computing them; see `part_counts`."""
    return sum(part_counts(aggregator, frames, h, w).values())


def prefix_key(aggregator: Any) -> object:
    """Return a key of the first part: where two aggregators have equal keys, their first parts are equal."""
    return aggregator.prefix_key() if hasattr(aggregator, "prefix_key") else identity_key(aggregator)


def shared_tokens(one: Any, other: Any, frames: int, h: int = 24, w: int = 24) -> int:
    """Count the leading visual tokens that two aggregators have in common for the same frames."""
    if identity_key(one) == identity_key(other):
        return token_count(other, frames, h, w)
    if prefix_key(one) != prefix_key(other):
        return 0
    return next(iter(part_counts(other, frames, h, w).values()))


def detailed_frames(aggregator: Any, frames: int) -> list[int]:
    """Return the indices of the frames that get more tokens than the others (a Slow pathway's); by default none."""
    return aggregator.detailed_frames(frames) if hasattr(aggregator, "detailed_frames") else []


def has_pathways(aggregator: Any) -> bool:
    """Return whether some frames get more tokens than others, and may be chosen apart from them."""
    return hasattr(aggregator, "with_frames")


def with_frames(aggregator: Any, detailed: Sequence[int], others: Sequence[int]) -> Any:
    """Return the aggregator for a patch grid of chosen frames.

    Args:
        aggregator: one that has pathways.
        detailed: positions in the grid of the frames that get more tokens (a Slow pathway's).
        others: positions of the frames that get fewer.
    """
    return aggregator.with_frames(detailed, others)


def tier_counts(aggregator: Any) -> tuple[int, ...]:
    """Return how many frames it takes of each rank, the best first; empty where frames have no ranks."""
    return aggregator.counts if hasattr(aggregator, "with_tiers") else ()


def with_tiers(aggregator: Any, tiers: Sequence[Sequence[int]]) -> Any:
    """Return the aggregator for a patch grid of ranked frames.

    Args:
        aggregator: one that has tiers.
        tiers: positions in the grid of the frames of each tier, the best first.
    """
    return aggregator.with_tiers(tiers)


def needs_features(aggregator: Any) -> bool:
    """Return whether the frames and patches behind a token depend on the features; by default they do not."""
    return bool(getattr(aggregator, "needs_features", False))


def check_grid(grid: Tensor) -> None:
    """Raise SfllavaError unless a patch grid is (T h w D) with no empty axis."""
    if grid.ndim != 4 or 0 in grid.shape:
        raise SfllavaError(f"needed a patch grid of shape (T h w D) with no empty axis, got {tuple(grid.shape)}")


def check_counts(aggregator: object, name: str, *counts: int) -> None:
    """Raise SfllavaError unless all counts are at least 1."""
    if min(counts) < 1:
        raise SfllavaError(f"{type(aggregator).__name__}: {name} needs numbers of at least 1, got {counts}")
