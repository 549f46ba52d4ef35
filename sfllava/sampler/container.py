"""What a video file declares about itself, read with PyAV."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.sampler.video import VideoError

# What is opened as a video. Playlists (HLS, DASH, concat) are not: they would bring other files in its place
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,apng,mxf,nut,rm,dv,ivf,av1,obu,h264,hevc,m4v,mpegvideo,"
    "mjpeg,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe"
)
MAX_FRAME_PIXELS = 1 << 26  # 8192 x 8192; a damaged header can declare frames that no memory holds


def first_line(error: BaseException) -> str:
    """The last line that says something: decord puts a native stack around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@dataclass(frozen=True)
class ContainerInfo:
    """What a file says of itself.

    turns: the quarter turns counter-clockwise that bring its frames upright. frames: how many it declares, 0 where it
    does not. ends: when its last frame should end, in seconds, NaN where it does not say.
    """

    codec: str
    turns: int
    frames: int
    fps: float | None
    ends: float
    pixels: int


def open_container(path: Path) -> Any:
    import av

    # absolute: 12:30.mp4 would be a protocol's address
    return av.open(str(path.absolute()), metadata_errors="replace", options={"format_whitelist": _CONTAINERS})


def probe_container(path: Path) -> ContainerInfo:
    import av

    try:
        with open_container(path) as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
                raise VideoError(f"{path}: needed a video stream, got {kinds} streams only")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(f"{path}: no decoder knows how its video is coded")
            if (pixels := stream.width * stream.height) > MAX_FRAME_PIXELS:
                raise VideoError(
                    f"{path}: needed frames of at most {MAX_FRAME_PIXELS:,} pixels, got {stream.width}x{stream.height}"
                )
            ends = _ends(container, stream)
            frame = None
            with contextlib.suppress(av.FFmpegError):
                frame = next(container.decode(stream), None)
            # ffmpeg's angle is counter-clockwise, as numpy's rot90
            turns = round((frame.rotation if frame else 0) / 90) % 4
            fps = float(stream.average_rate) if stream.average_rate else None
            return ContainerInfo(stream.codec_context.name, turns, stream.frames, fps, ends, pixels)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a readable video: {first_line(error)}") from error


def _ends(container: Any, stream: Any) -> float:
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    with contextlib.suppress(KeyError, ValueError):  # Matroska's 00:00:02.000000000
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return math.nan


def earliest_end(about: ContainerInfo) -> float:
    """When the last frame must have ended, at least, if the file is whole; NaN where nobody knows."""
    return about.ends - max(0.1, 1.5 / (about.fps or 1))
