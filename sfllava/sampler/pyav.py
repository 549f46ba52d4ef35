"""Reading frames with PyAV: slower than decord, but it also reads rotated, edited and damaged files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.sampler.container import ContainerInfo, open_container
from sfllava.sampler.images import RESIZE_BYTES, FrameSize, resize_frames
from sfllava.sampler.sampling import Selection
from sfllava.sampler.video import Video, VideoError

log = logging.getLogger(__name__)


@dataclass
class _DecodeStats:
    """What happened while decoding: failed packets, frames with gaps, packets that are not shown, the last end."""

    failed: int = 0
    gaps: int = 0
    hidden: int = 0
    end_seconds: float = 0.0


def read_with_pyav(path: Path, info: ContainerInfo, selection: Selection, size: FrameSize | None) -> Video:
    """Sample frames of a video file with PyAV; of a damaged file, the frames that can be decoded.

    Args:
        path: the file.
        info: what `probe_container` read from it.
        selection: the frames to read.
        size: what to resize the frames to, as `resize_frames` takes it; None to keep them.

    Returns:
        The sampled frames; `damage` says what is wrong with the file.

    Raises:
        VideoError: no frame can be decoded.
    """
    # 1) decode once to count: a container's own count can be wrong (damaged files) or missing (GIF)
    stats = _DecodeStats()
    with open_container(path) as container:
        total = sum(1 for _ in _decode(container, stats))
    declared = max(0, info.frames - stats.hidden)
    if total == 0:
        raise VideoError(f"{path}: no frame can be decoded" + (f" of the {declared} declared" if declared else ""))
    damage = _describe_damage(info, stats, total, declared)
    if damage:
        log.warning("%s: damaged: %s", path, damage)
    # 2) decode again and keep the sampled frames
    indices, span = selection.select(total, info.fps)
    wanted = set(indices.tolist())
    pixels, seconds, source = _read_frames(path, wanted, size)
    if len(pixels) < len(wanted):
        raise VideoError(f"{path}: {total} frames were counted, then only {len(pixels)} of {len(wanted)} could be read")
    times = np.array([seconds[i] for i in indices.tolist()])
    if (np.diff(times) < 0).any():  # AVI stores no times, and ffmpeg's guess is that of the packets
        times = indices / info.fps if info.fps else np.full(len(indices), np.nan)
    return Video(
        path=str(path),
        frames=np.stack([pixels[i] for i in indices.tolist()]),
        indices=indices,
        pts_seconds=times,
        fps=info.fps,
        size=source,
        total=total,
        decoder="pyav",
        span=span,
        damage=damage,
    )


def _read_frames(
    path: Path, wanted: set[int], size: FrameSize | None
) -> tuple[dict[int, np.ndarray], dict[int, float], tuple[int, int]]:
    """The wanted frames and their seconds, by index, and the (height, width) of the source, upright."""
    pixels: dict[int, np.ndarray] = {}
    seconds: dict[int, float] = {}
    pending: dict[int, np.ndarray] = {}  # at the source's size
    shape, turns = (0, 0), 0
    with open_container(path) as container:
        for i, frame in enumerate(_decode(container, _DecodeStats())):
            if i not in wanted:
                continue
            if not seconds:  # a stream may change its size on the way: the first frame decides
                shape = (frame.width, frame.height)
                turns = round(frame.rotation / 90) % 4  # counter-clockwise, as in np.rot90
            pending[i] = np.rot90(frame.reformat(*shape, format="rgb24").to_ndarray(), turns)
            seconds[i] = float("nan") if frame.time is None else frame.time
            finished = len(seconds) == len(wanted)
            if size and (finished or sum(each.nbytes for each in pending.values()) > RESIZE_BYTES):
                pixels |= zip(pending, resize_frames(np.stack([*pending.values()]), size))
                pending.clear()
            if finished:
                break
    width, height = shape
    return pixels | pending, seconds, (width, height) if turns % 2 else (height, width)


def _describe_damage(info: ContainerInfo, stats: _DecodeStats, total: int, declared: int) -> str:
    """What is wrong with a file, in words; empty if nothing is."""
    found = []
    if total < declared:
        found.append(f"only {total} of {declared} declared frames can be decoded")
    elif stats.failed:
        found.append(f"{stats.failed} of its packets cannot be decoded")
    elif stats.end_seconds < info.earliest_end:
        found.append(f"it ends after {stats.end_seconds:.1f} of {info.end_seconds:.1f} s")
    if stats.gaps:
        found.append(f"{stats.gaps} of its frames have gaps")
    return "; ".join(found)


def _decode(container: Any, stats: _DecodeStats) -> Iterator[Any]:
    """Yield the frames in the order in which they are shown; a damaged packet costs its own frames only."""
    import av

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            stats.hidden += packet.is_discard and packet.size > 0
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                stats.end_seconds = max(stats.end_seconds, end)
            for frame in packet.decode():
                stats.gaps += frame.is_corrupt
                yield frame
        except av.InvalidDataError:
            stats.failed += 1
        except EOFError:
            return
        except av.FFmpegError:
            stats.failed += 1
            return
