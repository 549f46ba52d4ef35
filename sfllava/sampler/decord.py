"""Reading frames with decord."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.sampler.container import ContainerInfo, earliest_end
from sfllava.sampler.resizing import RESIZE_BYTES, resize_frames
from sfllava.sampler.sampling import union_indices
from sfllava.sampler.video import Video, VideoError


def read_with_decord(
    path: Path, about: ContainerInfo, frames: int | Sequence[int], size: tuple[int, int] | None
) -> Video:
    import decord

    if about.frames > path.stat().st_size:  # it would take memory for all of them
        raise VideoError(f"{about.frames} declared frames are more than it has bytes")
    reader: Any = decord.VideoReader(str(path.absolute()), num_threads=1)
    total = len(reader)
    if total < about.frames:
        raise VideoError(f"only {total} of {about.frames} declared frames")
    indices = union_indices(total, frames)
    seconds = reader.get_frame_timestamp([*indices.tolist(), 0, total - 1]).astype(np.float64)
    (first, _), (last, end) = seconds[-2:]
    # it counts frames that an edit list cuts away (clips cut without encoding anew), and repeats others for them
    if first < 0 or last > about.ends - 1e-3:
        raise VideoError("some of its frames are not to be shown")
    if (np.diff(seconds[:-2, 0]) < 0).any() or end < earliest_end(about):
        raise VideoError("its times are not those of its frames")
    at_once = max(1, RESIZE_BYTES // (3 * about.pixels or 1)) if size else total
    parts = []
    for i in range(0, len(indices), at_once):
        parts.append(reader.get_batch(indices[i : i + at_once].tolist()).asnumpy())
        source = parts[-1].shape[1:3]
        if size:
            parts[-1] = resize_frames(parts[-1], size)
    return Video(
        path=str(path),
        frames=np.concatenate(parts) if len(parts) > 1 else parts[0],
        indices=indices,
        pts_seconds=seconds[:-2, 0],
        fps=float(reader.get_avg_fps()),
        size=source,
        total=total,
        decoder="decord",
    )
