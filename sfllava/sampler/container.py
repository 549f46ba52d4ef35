"""What a video file declares about itself, read with PyAV."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.sampler.video import VideoError

# Playlists (HLS, DASH, concat) are missing on purpose: they would open other files
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,apng,mxf,nut,rm,dv,ivf,av1,obu,h264,hevc,m4v,mpegvideo,"
    "mjpeg,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe"
)
MAX_FRAME_PIXELS = 1 << 26  # 8192 x 8192; a damaged header can declare frames that exceed any memory


@dataclass(frozen=True)
class ContainerInfo:
    """What a video file declares about its video stream.

    Args:
        frames: the number of frames, 0 if the file does not say.
        fps: the average frame rate, None if the file does not say.
        end_seconds: when the last frame ends, NaN if the file does not say.
        pixels: the number of pixels per frame.
    """

    frames: int
    fps: float | None
    end_seconds: float
    pixels: int

    @property
    def earliest_end(self) -> float:
        """The earliest time at which the last frame of an intact file can end, in seconds; NaN if unknown."""
        return self.end_seconds - max(0.1, 1.5 / (self.fps or 1))


def first_line(error: BaseException) -> str:
    """Return the first line of an error, without the native stack trace that decord appends."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def open_container(path: Path) -> Any:
    """Open a video file with PyAV; playlists are refused."""
    import av

    # an absolute path, since ffmpeg would take 12:30.mp4 for an address
    return av.open(str(path.absolute()), metadata_errors="replace", options={"format_whitelist": _CONTAINERS})


def probe_container(path: Path) -> ContainerInfo:
    """Read what a video file declares about itself; no frame is decoded.

    Args:
        path: the file.

    Returns:
        The declarations of its first video stream.

    Raises:
        VideoError: it is not a video, has no video stream, or declares frames of more than MAX_FRAME_PIXELS pixels.
    """
    import av

    try:
        with open_container(path) as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
                raise VideoError(f"{path}: needed a video stream, got {kinds} streams only")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(f"{path}: no decoder for its video codec")
            if (pixels := stream.width * stream.height) > MAX_FRAME_PIXELS:
                raise VideoError(
                    f"{path}: needed frames of at most {MAX_FRAME_PIXELS:,} pixels, got {stream.width}x{stream.height}"
                )
            fps = float(stream.average_rate) if stream.average_rate else None
            return ContainerInfo(stream.frames, fps, _end_seconds(stream), pixels)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a readable video: {first_line(error)}") from error


def _end_seconds(stream: Any) -> float:
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    with contextlib.suppress(KeyError, ValueError):  # Matroska writes 00:00:02.000000000
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return math.nan
