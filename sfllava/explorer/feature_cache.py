"""What was decoded and encoded of the last few videos, so that a change of setting computes only what is new."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import identity_key
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.sampling import sample_indices
from sfllava.sampler.video import Video
from sfllava.settings import Setting

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


@dataclass(frozen=True)
class EncodedSample:
    """A video at one setting: its frames (T), its patch grid (T' h w D), and what had to be done for them."""

    video: Video
    grid: Tensor
    decoded: int
    encoded: int
    seconds: dict[str, float]


@dataclass
class _Known:
    """One video's frames by their number in the source, and what the vision tower made of them."""

    about: Video
    pixels: dict[int, np.ndarray] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    grids: dict[int, Tensor] = field(default_factory=dict)
    tiled: dict[tuple[int, object], Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        tensors = (*self.grids.values(), *self.tiled.values())
        return sum(p.nbytes for p in self.pixels.values()) + sum(t.numel() * t.element_size() for t in tensors)


@dataclass(frozen=True)
class _Kept:
    """Something else that was computed of a video, and its bytes."""

    value: Any
    size: int


class FeatureCache:
    """Frames and patch grids of the last few videos, and what else was computed of them and is kept here.

    All together they take `limit` bytes at most: what was used longest ago goes first, and what is at hand stays.
    Patch grids stay on the model's device. Not safe for two threads at once.
    """

    def __init__(self, model: VideoLM, limit: int = 2 << 30) -> None:
        self.model, self.limit = model, limit
        self._known: OrderedDict[Hashable, _Known | _Kept] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(known.size for known in self._known.values())

    def keep(self, key: Hashable, value: Any, size: int) -> None:
        """Keep what takes `size` bytes, as long as there is room."""
        self._known[key] = _Kept(value, size)
        self._known.move_to_end(key)
        self._drop_oldest()

    def kept(self, key: Hashable) -> Any:
        """What was kept by this key; None where it was not, or was dropped. Safe from any thread."""
        found = self._known.get(key)
        return found.value if isinstance(found, _Kept) else None

    def video(self, path: str | Path, frames: int) -> Video:
        """A sample of `frames` frames, of the model's size; decoded only where a frame of it is not at hand."""
        return self._sample(path, frames)[0]

    def total(self, path: str | Path) -> int | None:
        """Frames of a video of which a sample is at hand; None where that is not known. Safe from any thread."""
        known = self._of(path)
        return None if known is None else known.about.total

    def seen(self, path: str | Path, setting: Setting, check: Callable[[int], None] = lambda _: None) -> EncodedSample:
        """Frames and patch grid for a setting. Raises VideoError where the video cannot be read.

        `check` is called with the number of frames before any is encoded, and may raise.
        """
        start = time.perf_counter()
        video, decoded = self._sample(path, setting.frames)
        check(len(video.frames))
        between = time.perf_counter()
        known = self._of(path)
        assert known is not None
        images = setting.images(video.frames)
        if images is video.frames:
            encoded = self._encode(known, video)
            grid = torch.stack([known.grids[i] for i in video.indices.tolist()])
        else:
            key = (setting.frames, identity_key(setting.aggregation))
            encoded = 0 if key in known.tiled else len(images)
            if encoded:
                known.tiled[key] = self.model.encode(images)
            grid = known.tiled[key]
        self._forget(video)
        seconds = {"decode": between - start, "encode": time.perf_counter() - between}
        return EncodedSample(video, grid, decoded, encoded, seconds)

    def _sample(self, path: str | Path, frames: int) -> tuple[Video, int]:
        known, decoded = self._of(path), 0
        wanted = [] if known is None else sample_indices(known.about.total, frames).tolist()
        if known is None or not all(i in known.pixels for i in wanted):
            size = (self.model.info.image_size, self.model.info.image_size)
            with DecodePool(1) as pool:  # a decoder that hangs must not take the notebook's kernel along
                video = pool.submit(path, frames, size).result()
            decoded, wanted = len(video.indices), video.indices.tolist()
            known = known or _Known(replace(video, frames=video.frames[:0].copy()))
            for at, i in enumerate(wanted):
                # copies, so that no frame keeps its whole sample in memory
                known.pixels.setdefault(i, video.frames[at].copy())
                known.seconds[i] = float(video.pts_seconds[at])
        self._known[_key(path)] = known
        self._known.move_to_end(_key(path))
        sample = replace(
            known.about,
            frames=np.stack([known.pixels[i] for i in wanted]),
            indices=np.array(wanted),
            pts_seconds=np.array([known.seconds[i] for i in wanted]),
        )
        self._forget(sample)
        return sample, decoded

    def _encode(self, known: _Known, video: Video) -> int:
        new = [at for at, i in enumerate(video.indices.tolist()) if i not in known.grids]
        if new:
            for at, grid in zip(new, self.model.encode(video.frames[new])):
                known.grids[int(video.indices[at])] = grid.clone()
        return len(new)

    def _forget(self, video: Video) -> None:
        """Drop what was used longest ago, then of the video at hand the frames that its sample does not have."""
        self._drop_oldest()
        known = next(iter(self._known.values()))
        if self.size > self.limit and isinstance(known, _Known):
            keep = set(video.indices.tolist())
            for table in (known.pixels, known.grids):
                for i in [i for i in table if i not in keep]:
                    del table[i]
            while self.size > self.limit and len(known.tiled) > 1:
                del known.tiled[next(iter(known.tiled))]

    def _drop_oldest(self) -> None:
        while self.size > self.limit and len(self._known) > 1:
            self._known.popitem(last=False)

    def _of(self, path: str | Path) -> _Known | None:
        found = self._known.get(_key(path))
        return found if isinstance(found, _Known) else None


def _key(path: str | Path) -> tuple[str, int, int]:
    """A file that was replaced is another video."""
    path = Path(path)
    if not path.exists():
        return str(path), 0, 0  # reading it says what is wrong
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size
