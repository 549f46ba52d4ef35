"""Reading frames with PyAV, which copes with what decord does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.sampler.container import ContainerInfo, earliest_end, open_container
from sfllava.sampler.resizing import RESIZE_BYTES, resize_frames
from sfllava.sampler.sampling import union_indices
from sfllava.sampler.video import Video, VideoError

log = logging.getLogger(__name__)


@dataclass
class _DecodeStats:
    """What was met while decoding: packets that could not be, frames with gaps, packets not to be shown."""

    broken: int = 0
    gaps: int = 0
    hidden: int = 0
    end: float = 0.0


def read_with_pyav(
    path: Path, about: ContainerInfo, frames: int | Sequence[int], size: tuple[int, int] | None
) -> Video:
    # A container's own count can be wrong (or missing: GIF, damaged files), so decode once to count what
    # there really is and once more for the wanted frames; only the latter are turned into pixels.
    tally = _DecodeStats()
    with open_container(path) as container:
        total = sum(1 for _ in _decode(container, tally))
    declared = max(0, about.frames - tally.hidden)
    if total == 0:
        raise VideoError(f"{path}: no frame can be decoded" + (f" of the {declared} declared" if declared else ""))
    damage = _damage(about, tally, total, declared)
    if damage:
        log.warning("%s: damaged: %s", path, damage)
    indices = union_indices(total, frames)
    wanted, pixels, seconds, source = set(indices.tolist()), {}, {}, None
    waiting: dict[int, np.ndarray] = {}
    with open_container(path) as container:
        for i, frame in enumerate(_decode(container, _DecodeStats())):
            if i not in wanted:
                continue
            source = source or (frame.width, frame.height)  # a stream may change its size on the way
            waiting[i] = np.rot90(frame.reformat(*source, format="rgb24").to_ndarray(), about.turns)
            seconds[i] = float("nan") if frame.time is None else frame.time
            upright, last = waiting[i].shape[:2], len(seconds) == len(wanted)
            if size and (last or sum(each.nbytes for each in waiting.values()) > RESIZE_BYTES):
                pixels |= zip(waiting, resize_frames(np.stack([*waiting.values()]), size))
                waiting.clear()
            if last:
                break
    pixels |= waiting
    if len(pixels) < len(wanted):
        raise VideoError(f"{path}: {total} frames were counted, then only {len(pixels)} of {len(wanted)} could be read")
    times = np.array([seconds[i] for i in indices.tolist()])
    if (np.diff(times) < 0).any():  # AVI has no times, and ffmpeg's guess is that of the packets
        times = indices / about.fps if about.fps else np.full(len(indices), np.nan)
    return Video(
        path=str(path),
        frames=np.stack([pixels[i] for i in indices.tolist()]),
        indices=indices,
        pts_seconds=times,
        fps=about.fps,
        size=upright,
        total=total,
        decoder="pyav",
        damage=damage,
    )


def _damage(about: ContainerInfo, tally: _DecodeStats, total: int, declared: int) -> str:
    found = []
    if total < declared:
        found.append(f"only {total} of {declared} declared frames can be decoded")
    elif tally.broken:
        found.append(f"{tally.broken} of its packets cannot be decoded")
    elif tally.end < earliest_end(about):
        found.append(f"it ends after {tally.end:.1f} of {about.ends:.1f} s")
    if tally.gaps:
        found.append(f"{tally.gaps} of its frames have gaps")
    return "; ".join(found)


def _decode(container: Any, tally: _DecodeStats) -> Iterator[Any]:
    """Frames in order of showing; a damaged packet costs its frames, not the rest."""
    import av

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            tally.hidden += packet.is_discard and packet.size > 0
            if packet.pts is not None:
                tally.end = max(tally.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            for frame in packet.decode():
                tally.gaps += frame.is_corrupt
                yield frame
        except av.InvalidDataError:
            tally.broken += 1
        except EOFError:
            return
        except av.FFmpegError:
            tally.broken += 1
            return
