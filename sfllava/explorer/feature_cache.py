"""Frames and features of the last few videos, so that a change of setting computes only what is new."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import identity_key, makes_images
from sfllava.aggregators.tower import PatchGrid, features_of, tower_needs, with_outputs
from sfllava.models.base import VideoLM
from sfllava.sampler.images import FrameSize
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.sampling import AnySample, FrameIndices, union_indices
from sfllava.sampler.video import Video
from sfllava.settings import Setting


@dataclass(frozen=True)
class EncodedSample:
    """A video at one setting.

    Attributes:
        video: its sampled frames (T).
        grid: (T' h w D) the patch grid of the images that the vision tower encodes; a `PatchGrid` where the aggregator
            needs more of the tower.
        decoded: frames that had to be decoded.
        encoded: images that had to be encoded.
        seconds: decode and encode.
    """

    video: Video
    grid: Any
    decoded: int
    encoded: int
    seconds: dict[str, float]


@dataclass
class _VideoFeatures:
    """One video: pixels, seconds, patch grid and outputs of the tower of each frame by its index, and made images."""

    about: Video
    pixels: dict[int, np.ndarray] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    grids: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    made: dict[tuple[AnySample, object], Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        outputs = (value for found in self.outputs.values() for value in found.values())
        tensors = (*self.grids.values(), *outputs, *self.made.values())
        return sum(p.nbytes for p in self.pixels.values()) + sum(t.numel() * t.element_size() for t in tensors)

    def has(self, index: int, needs: tuple[str, ...]) -> bool:
        """Return whether a frame is encoded, with what is needed of the tower."""
        return index in self.grids and set(needs) <= self.outputs.get(index, {}).keys()

    def grid(self, indices: list[int], needs: tuple[str, ...]) -> Any:
        """Return the patch grid of some frames, with what is needed of the tower."""
        features = torch.stack([self.grids[i] for i in indices])
        outputs = {name: torch.stack([self.outputs[i][name] for i in indices]) for name in needs}
        return PatchGrid(features, **outputs) if needs else features


@dataclass(frozen=True)
class _Kept:
    """Any other result about a video, and its size in bytes."""

    value: Any
    size: int


class FeatureCache:
    """Frames and patch grids of the last few videos, and other results about them.

    All take `limit` bytes at most: the least recently used is dropped first, and the current video stays. Patch grids
    stay on the model's device. Not safe for two threads, except where a method says so.
    """

    def __init__(self, model: VideoLM, limit: int = 2 << 30) -> None:
        self.model, self.limit = model, limit
        self._entries: OrderedDict[Hashable, _VideoFeatures | _Kept] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(known.size for known in self._entries.values())

    def keep(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of `size` bytes, as long as there is room."""
        self._entries[key] = _Kept(value, size)
        self._entries.move_to_end(key)
        self._drop_oldest()

    def kept(self, key: Hashable) -> Any:
        """Return what is kept under a key, or None. Safe from any thread."""
        found = self._entries.get(key)
        return found.value if isinstance(found, _Kept) else None

    def video(self, path: str | Path, sample: AnySample) -> Video:
        """Sample frames at the model's image size; decode only where one of them is missing."""
        return self._decode(path, sample)[0]

    def read(self, path: str | Path, samples: AnySample | Sequence[AnySample], size: FrameSize) -> Video:
        """Decode frames of a video at any size, in another process; nothing is kept."""
        with DecodePool(1) as pool:  # a decoder that hangs must not hang the notebook's kernel
            return pool.submit(path, samples, size).result()

    def total(self, path: str | Path) -> int | None:
        """Return how many frames a video has, or None while that is not known. Safe from any thread."""
        known = self._features_of(path)
        return None if known is None else known.about.total

    def sample(
        self, path: str | Path, setting: Setting, check: Callable[[int], None] = lambda _: None
    ) -> EncodedSample:
        """Decode and encode what a setting needs and is missing.

        Args:
            path: the video.
            setting: how many frames, and which images are made of them.
            check: called with the number of frames before any is encoded; may raise.

        Returns:
            Frames and patch grid.

        Raises:
            VideoError: the video cannot be read.
        """
        start = time.perf_counter()
        video, decoded = self._decode(path, setting.sample)
        check(len(video.frames))
        decoded_at = time.perf_counter()
        known = self._features_of(path)
        assert known is not None
        if not makes_images(setting.aggregation):
            needs = tower_needs(setting.aggregation)
            encoded = self._encode(known, video, needs)
            grid = known.grid(video.indices.tolist(), needs)
        else:
            images = setting.images(video.frames)
            key = (setting.sample, identity_key(setting.aggregation))
            encoded = 0 if key in known.made else len(images)
            if encoded:
                known.made[key] = self.model.encode(images)
            grid = known.made[key]
        self._forget(video)
        seconds = {"decode": decoded_at - start, "encode": time.perf_counter() - decoded_at}
        return EncodedSample(video, grid, decoded, encoded, seconds)

    def _decode(self, path: str | Path, sample: AnySample) -> tuple[Video, int]:
        known, decoded = self._features_of(path), 0
        about = None if known is None else known.about
        wanted = union_indices(sample, 0, about.total - 1, about.fps).tolist() if about else []
        missing = [i for i in dict.fromkeys(wanted) if known is not None and i not in known.pixels]
        if known is None or missing:
            # frames chosen for questions have most of their frames in common
            read = FrameIndices(tuple(missing)) if missing and isinstance(sample, FrameIndices) else sample
            video = self.read(path, read, (self.model.info.image_size, self.model.info.image_size))
            decoded = len(video.indices)
            wanted = wanted or video.indices.tolist()
            known = known or _VideoFeatures(replace(video, frames=video.frames[:0].copy()))
            for row, i in enumerate(video.indices.tolist()):
                # copies, so that no frame keeps its whole sample in memory
                known.pixels.setdefault(i, video.frames[row].copy())
                known.seconds[i] = float(video.pts_seconds[row])
        self._entries[_key(path)] = known
        self._entries.move_to_end(_key(path))
        sampled = replace(
            known.about,
            frames=np.stack([known.pixels[i] for i in wanted]),
            indices=np.array(wanted),
            pts_seconds=np.array([known.seconds[i] for i in wanted]),
        )
        self._forget(sampled)
        return sampled, decoded

    def _encode(self, known: _VideoFeatures, video: Video, needs: tuple[str, ...]) -> int:
        rows = {i: row for row, i in enumerate(video.indices.tolist())}  # a frame may be chosen several times
        new = [row for i, row in rows.items() if not known.has(i, needs)]
        if new:
            found = self.model.encode(with_outputs(video.frames[new], needs))
            for place, row in enumerate(new):
                i = int(video.indices[row])
                known.grids.setdefault(i, features_of(found)[place].clone())
                if needs:
                    more = {name: value[place].clone() for name, value in found.outputs.items()}
                    known.outputs[i] = known.outputs.get(i, {}) | more
        return len(new)

    def _forget(self, video: Video) -> None:
        """Drop the least recently used, then those frames of the current video that its sample does not have."""
        self._drop_oldest()
        known = next(iter(self._entries.values()))
        if self.size > self.limit and isinstance(known, _VideoFeatures):
            keep = set(video.indices.tolist())
            for table in (known.pixels, known.grids, known.outputs):
                for i in [i for i in table if i not in keep]:
                    del table[i]
            while self.size > self.limit and len(known.made) > 1:
                del known.made[next(iter(known.made))]

    def _drop_oldest(self) -> None:
        while self.size > self.limit and len(self._entries) > 1:
            self._entries.popitem(last=False)

    def _features_of(self, path: str | Path) -> _VideoFeatures | None:
        found = self._entries.get(_key(path))
        return found if isinstance(found, _VideoFeatures) else None


def _key(path: str | Path) -> tuple[str, int, int]:
    """Return a key that changes when a file is replaced."""
    path = Path(path)
    if not path.exists():
        return str(path), 0, 0  # reading it raises the error
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size
