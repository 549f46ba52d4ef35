"""What a setting takes of a device's memory, and what would fit where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from sfllava.models.sizes import Sizes
from sfllava.planning import stages
from sfllava.planning.roofline import Roofline
from sfllava.planning.workload import PlannedQuestions, with_frames


@dataclass(frozen=True)
class Memory:
    """Bytes by what they hold, at the moment when they are most."""

    weights: int
    kv: int
    """Keys and values of the prefixes that are decoded together, with room for questions and answers"""
    patches: int
    """The patch grids of their videos, and one more while its batches are joined"""
    work: int
    """What a batch of images or a forward of the language model takes beside those"""

    @property
    def peak(self) -> int:
        return self.weights + self.kv + self.patches + self.work


@dataclass(frozen=True)
class Way:
    """How a run goes about it."""

    together: int
    """Questions up to which videos are answered together; with 1, each video is by itself"""
    most: int
    """Questions of a video at a time"""
    batch: int
    """Images at a time"""


def batch_of(device: Roofline) -> int:
    """Images that `VideoLM.encode` has in a batch."""
    return 64 if device.kind == "cuda" else 8


def memory(asked: PlannedQuestions, sizes: Sizes, device: Roofline, images: int, way: Way) -> Memory:
    """The most that a setting takes; `images` are those whose patches a video keeps."""
    shape, size = sizes.shape, device.itemsize
    groups = asked.load.groups(way.together)
    kv, work, wide = 0, stages.encode_bytes(shape, size, min(way.batch, images)), 1
    for counts in asked.counts(groups):
        at_a_time = asked.pack(counts, way.most)
        room = asked.start + at_a_time * (asked.suffix + asked.load.room)
        kv = max(kv, shape.kv_bytes(len(counts) * room, size))
        rows = max(asked.start, len(counts) * at_a_time * asked.suffix)
        work = max(work, stages.forward_bytes(shape, size, rows, len(counts) * at_a_time))
        wide = max(wide, len(counts))
    if asked.alone:
        kv = max(kv, shape.kv_bytes(asked.prompt + asked.load.room, size))
        work = max(work, stages.forward_bytes(shape, size, asked.prompt, 1))
    wide = max(wide, *map(len, groups))
    patches = (wide + 1) * images * math.prod(shape.grid) * shape.language.width * size
    return Memory(shape.parameters * size, kv, patches, work)


def ways(asked: PlannedQuestions, device: Roofline, together: int) -> list[Way]:
    """All at once, then half as many videos, then half of one: as a run finds by itself what its memory holds."""
    most, batch = max(1, *asked.sharing), batch_of(device)
    found = [Way(together, most, batch)]
    while together > 1:
        together //= 2
        found.append(Way(together, most, batch))
    while most > 1 or batch > 1:
        most, batch = max(1, most // 2), max(1, batch // 2)
        found.append(Way(1, most, batch))
    return found


def way_that_fits(asked: PlannedQuestions, sizes: Sizes, device: Roofline, images: int, together: int) -> Way | None:
    """The first way that the device's free memory holds."""
    found, free = ways(asked, device, together), device.free_bytes
    return next((w for w in found if memory(asked, sizes, device, images, w).peak <= free), None)


def advice(asked: PlannedQuestions, sizes: Sizes, device: Roofline, images: int) -> str:
    """What would fit, of a setting that does not."""
    frames = asked.setting.frames
    if not asked.answered:
        text = f"{asked.visual:,} visual and {asked.shortest:,} text tokens do not fit the context of {sizes.context:,}"
        fitting = _largest(frames, lambda n: with_frames(asked, sizes, n).answered > 0)
        return f"{text}; " + (f"at most {fitting} frames do" if fitting else "at no number of frames")
    least = Way(1, 1, 1)
    need = memory(asked, sizes, device, images, least)
    text = f"{gib(need.peak)} even one question at a time, and {gib(device.free_bytes)} are free"
    options = []
    fitting = _largest(
        frames,
        lambda n: memory(with_frames(asked, sizes, n), sizes, device, min(images, n), least).peak <= device.free_bytes,
    )
    if fitting:
        options.append(f"at most {fitting} frames")
    if device.dtype == "float32":
        half = memory(asked, sizes, replace(device, dtype="float16"), images, least).peak
        if half <= device.free_bytes:
            options.append(f"float16 ({gib(half)})")
    spread, each = need.weights + need.kv, need.patches + need.work
    if device.kind == "cuda" and each < device.free_bytes:
        options.append(f"{math.ceil(spread / (device.free_bytes - each))} such GPUs (--device-map auto)")
    return f"{text}; what fits: {', or '.join(options) or 'no number of frames'}"


def sharing_frames(asked: PlannedQuestions, sizes: Sizes) -> int:
    """The most frames with which all questions still share a prefix; 0 for none."""
    return _largest(asked.setting.frames, lambda n: not (a := with_frames(asked, sizes, n)).alone and not a.failing)


def _largest(frames: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `frames` that fits, where fewer frames take less; 0 for none."""
    low, high = 0, frames
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
