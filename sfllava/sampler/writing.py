"""Writing a video file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sfllava.files import atomic_write


def write_video(path: str | Path, frames: np.ndarray, fps: int = 8, codec: str = "libx264", **options: str) -> Path:
    """Encode frames to a video file.

    Args:
        path: the file; its suffix picks the container.
        frames: (T H W 3) uint8, RGB.
        fps: frames per second.
        codec: ffmpeg's name of the encoder.
        **options: options of the encoder.

    Returns:
        The path.

    Raises:
        RunError: the file cannot be written.
    """
    import av

    path = Path(path)
    with atomic_write(path) as part, av.open(str(part), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
