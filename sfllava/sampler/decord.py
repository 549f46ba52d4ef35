"""Reading frames with decord (the package decord2).

decord raises an error on rotated files of some widths, on frames of a few pixels and on some damaged files, and gives
wrong frames or times where a file has an edit list or is cut off; those files are left to PyAV.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sfllava.sampler.container import ContainerInfo
from sfllava.sampler.images import RESIZE_BYTES, FrameSize, resize_frames
from sfllava.sampler.sampling import Selection
from sfllava.sampler.video import Video, VideoError


def read_with_decord(path: Path, info: ContainerInfo, selection: Selection, size: FrameSize | None) -> Video:
    """Sample frames of a video file with decord.

    Args:
        path: the file.
        info: what `probe_container` read from it.
        selection: the frames to read.
        size: what to resize the frames to, as `resize_frames` takes it; None to keep them.

    Returns:
        The sampled frames, never from a file that is known to be damaged.

    Raises:
        VideoError: decord's frames or times are not those of the file.
        Exception: decord cannot read it; its own errors have no common class.
    """
    import decord

    if info.frames > path.stat().st_size:  # decord would allocate memory for all of them
        raise VideoError(f"{info.frames} declared frames are more than it has bytes")
    reader: Any = decord.VideoReader(str(path.absolute()), num_threads=1)
    total = len(reader)
    if total < info.frames:
        raise VideoError(f"only {total} of {info.frames} declared frames")
    indices, span = selection.select(total, float(reader.get_avg_fps()))
    seconds = reader.get_frame_timestamp([*indices.tolist(), 0, total - 1]).astype(np.float64)
    _check_times(seconds[:-2, 0], seconds[-2, 0], seconds[-1], info)
    pixels, source = _read_batches(reader, indices, info, size)
    return Video(
        path=str(path),
        frames=pixels,
        indices=indices,
        pts_seconds=seconds[:-2, 0],
        fps=float(reader.get_avg_fps()),
        size=source,
        total=total,
        decoder="decord",
        span=span,
    )


def _check_times(sampled: np.ndarray, first_start: float, last: np.ndarray, info: ContainerInfo) -> None:
    """Raise VideoError where the times show that decord's frames are not those that a player would show."""
    last_start, last_end = last
    # decord counts frames that an edit list cuts away, and repeats others in their place
    if first_start < 0 or last_start > info.end_seconds - 1e-3:
        raise VideoError("some of its frames are hidden by an edit list")
    if (np.diff(sampled) < 0).any() or last_end < info.earliest_end:
        raise VideoError("its times are not those of its frames")


def _read_batches(
    reader: Any, indices: np.ndarray, info: ContainerInfo, size: FrameSize | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """(T H W 3) frames, resized a batch at a time to bound the memory, and the (height, width) of the source."""
    batch = max(1, RESIZE_BYTES // (3 * info.pixels or 1)) if size else len(indices)
    parts, source = [], (0, 0)
    for i in range(0, len(indices), batch):
        pixels = reader.get_batch(indices[i : i + batch].tolist()).asnumpy()
        source = pixels.shape[1:3]
        parts.append(resize_frames(pixels, size) if size else pixels)
    return (np.concatenate(parts) if len(parts) > 1 else parts[0]), source
