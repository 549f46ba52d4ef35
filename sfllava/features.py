"""What was decoded and encoded of the last few videos, so that a change of setting computes only what is new."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sfllava.decoders import DecodePool
from sfllava.sampler import Video, sample_indices
from sfllava.types import Setting, key_of

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext


@dataclass(frozen=True)
class Seen:
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


class Features:
    """Frames and patch grids of the last few videos, `limit` bytes of them at most (the one at hand stays).

    Patch grids stay on the model's device. Not safe for two threads at once.
    """

    def __init__(self, model: LlavaNext, limit: int = 2 << 30) -> None:
        self.model, self.limit = model, limit
        self._known: OrderedDict[tuple[str, int, int], _Known] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(known.size for known in self._known.values())

    def video(self, path: str | Path, frames: int) -> Video:
        """A sample of `frames` frames, of the model's size; decoded only where a frame of it is not at hand."""
        return self._sample(path, frames)[0]

    def seen(self, path: str | Path, setting: Setting) -> Seen:
        """Frames and patch grid for a setting. Raises VideoError where the video cannot be read."""
        start = time.perf_counter()
        video, decoded = self._sample(path, setting.frames)
        between = time.perf_counter()
        known = self._known[_key(path)]
        images = setting.images(video.frames)
        if images is video.frames:
            encoded = self._encode(known, video)
            grid = torch.stack([known.grids[i] for i in video.indices.tolist()])
        else:
            key = (setting.frames, key_of(setting.aggregation))
            encoded = 0 if key in known.tiled else len(images)
            if encoded:
                known.tiled[key] = self.model.encode(images)
            grid = known.tiled[key]
        self._forget(video)
        seconds = {"decode": between - start, "encode": time.perf_counter() - between}
        return Seen(video, grid, decoded, encoded, seconds)

    def _sample(self, path: str | Path, frames: int) -> tuple[Video, int]:
        key = _key(path)
        known, decoded = self._known.get(key), 0
        wanted = [] if known is None else sample_indices(known.about.total, frames).tolist()
        if known is None or not all(i in known.pixels for i in wanted):
            size = (self.model.image_size, self.model.image_size)
            with DecodePool(1) as pool:  # a decoder that hangs must not take the notebook's kernel along
                video = pool.submit(path, frames, size).result()
            decoded, wanted = len(video.indices), video.indices.tolist()
            known = known or _Known(replace(video, frames=video.frames[:0]))
            for at, i in enumerate(wanted):
                # copies, so that no frame keeps its whole sample in memory
                known.pixels.setdefault(i, video.frames[at].copy())
                known.seconds[i] = float(video.pts_seconds[at])
        self._known[key] = known
        self._known.move_to_end(key)
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
        """Drop the videos used longest ago, then of the one at hand the frames that its sample does not have."""
        while self.size > self.limit and len(self._known) > 1:
            self._known.popitem(last=False)
        if self.size > self.limit:
            known, keep = next(iter(self._known.values())), set(video.indices.tolist())
            for table in (known.pixels, known.grids):
                for i in [i for i in table if i not in keep]:
                    del table[i]
            while self.size > self.limit and len(known.tiled) > 1:
                del known.tiled[next(iter(known.tiled))]


def _key(path: str | Path) -> tuple[str, int, int]:
    """A file that was replaced is another video."""
    path = Path(path)
    if not path.exists():
        return str(path), 0, 0  # reading it says what is wrong
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size
