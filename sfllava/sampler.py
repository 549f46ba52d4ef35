"""Video file -> frames. The only module that imports decord and PyAV."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sfllava.disk import whole
from sfllava.types import SfllavaError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_PYAV_ONLY = {"av1", "libdav1d", "gif"}  # decord has no AV1, and reads GIFs frame by frame with wrong counts
Decoder = Literal["auto", "decord", "pyav"]
log = logging.getLogger(__name__)


class VideoError(SfllavaError):
    """A video that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Video:
    """Frames sampled from one video.

    frames: (T H W 3) uint8, RGB, upright. indices: (T) which frames of the `total`. pts_seconds: (T) when
    each is shown, NaN where the source has no clock (a folder of images). fps: frames a second, or None.
    size: (height, width) of the source, upright. total: frames that the source has (that can be decoded).
    """

    path: str
    frames: np.ndarray
    indices: np.ndarray
    pts_seconds: np.ndarray
    fps: float | None
    size: tuple[int, int]
    total: int
    decoder: str
    damage: str = ""
    """What is wrong with the file, where only a part of it could be decoded."""

    def positions(self, frames: int) -> np.ndarray:
        """Which of the frames at hand (T) a sample of `frames` frames has. Raises SfllavaError if it has others."""
        wanted = sample_indices(self.total, frames)
        found = np.searchsorted(self.indices, wanted).clip(max=len(self.indices) - 1)
        if not np.array_equal(self.indices[found], wanted):
            raise SfllavaError(f"{self.path}: was not read for a sample of {frames} frames")
        return found


def sample_indices(total: int, frames: int) -> np.ndarray:
    """Indices (min(total, frames)) of the middles of equal segments (arXiv 2407.15841's published sampling)."""
    if frames < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    if total < 1:
        raise SfllavaError(f"needed a video of at least 1 frame, got {total}")
    n = min(total, frames)
    bounds = np.round((total - 1) / n * np.arange(n + 1)).astype(np.int64)  # half to even, as published
    return (bounds[:-1] + bounds[1:]) // 2


def _union(total: int, frames: int | Sequence[int]) -> np.ndarray:
    """The indices of one sample, or of several together."""
    if isinstance(frames, int):
        return sample_indices(total, frames)
    return np.unique(np.concatenate([sample_indices(total, n) for n in frames]))


def resize_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T H W 3) uint8 -> (T h w 3) uint8 by PIL's default resize, whatever the aspect; size is (h, w)."""
    from PIL import Image

    if frames.shape[1:3] == size:
        return frames
    out = np.empty((len(frames), *size, 3), np.uint8)

    def one(i: int) -> None:  # PIL releases the GIL while it resizes
        out[i] = np.asarray(Image.fromarray(frames[i]).resize((size[1], size[0])))

    list(_threads().map(one, range(len(frames))))
    return out


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), "sfllava-resize")


def read_video(
    path: str | Path,
    frames: int | Sequence[int] = 50,
    *,
    size: tuple[int, int] | None = None,
    decoder: Decoder = "auto",
) -> Video:
    """Sample `frames` frames of a video file, or of a folder of frame images sorted by name.

    Of several numbers the frames of all samples are read together, each once; `Video.positions` tells them apart.
    With `size` (height, width) each is resized as the model will see it. decord decodes; PyAV takes over for
    what decord cannot (AV1, GIF, rotation, damaged containers). Raises VideoError, which names the file.
    """
    path = Path(path)
    if not (isinstance(frames, int) or len(frames)) or min([frames] if isinstance(frames, int) else frames) < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    if not path.exists():
        raise VideoError(f"{path}: no such video")
    if path.is_dir():
        return _read_folder(path, frames, size)
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes)")
    codec, turns = _probe(path)
    video = None
    # decord turns frames for some containers' rotation metadata and not for others': those files go to PyAV
    if decoder == "decord" or (decoder == "auto" and codec not in _PYAV_ONLY and not turns):
        try:
            video = _read_decord(path, frames)
        except Exception as error:
            if decoder == "decord":
                raise VideoError(f"{path}: decord cannot read it: {_line(error)}") from error
            log.info("%s: decord cannot read it (%s), trying PyAV", path, _line(error))
    if video is None:
        video = _read_pyav(path, frames)
    if turns and video.decoder == "pyav":
        upright = np.ascontiguousarray(np.rot90(video.frames, turns, axes=(1, 2)))
        video = replace(video, frames=upright, size=upright.shape[1:3])
    return replace(video, frames=resize_frames(video.frames, size)) if size else video


def _line(error: BaseException) -> str:
    """The last line that says something: decord puts a native stack around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _probe(path: Path) -> tuple[str, int]:
    """The codec, and how many quarter turns counter-clockwise bring the frames upright."""
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
                raise VideoError(f"{path}: needed a video stream, got {kinds} streams only")
            stream = container.streams.video[0]
            codec = stream.codec_context.name
            turns = 0
            with contextlib.suppress(av.FFmpegError):
                frame = next(container.decode(stream), None)
                # ffmpeg's angle is counter-clockwise, as numpy's rot90
                turns = round((frame.rotation if frame else 0) / 90) % 4
            return codec, turns
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a readable video: {_line(error)}") from error


def _read_decord(path: Path, frames: int | Sequence[int]) -> Video:
    import decord

    reader: Any = decord.VideoReader(str(path), num_threads=1)
    total = len(reader)
    indices = _union(total, frames)
    out = reader.get_batch(indices.tolist()).asnumpy()
    return Video(
        path=str(path),
        frames=out,
        indices=indices,
        pts_seconds=reader.get_frame_timestamp(indices.tolist())[:, 0].astype(np.float64),
        fps=float(reader.get_avg_fps()),
        size=out.shape[1:3],
        total=total,
        decoder="decord",
    )


def _read_pyav(path: Path, frames: int | Sequence[int]) -> Video:
    import av

    # A container's own count can be wrong (or missing: GIF, damaged files), so decode once to count what
    # there really is and once more for the wanted frames; only the latter are turned into pixels.
    total, declared, fps = _count_pyav(path)
    if total == 0:
        raise VideoError(f"{path}: no frame can be decoded" + (f" of the {declared} declared" if declared else ""))
    damage = f"only {total} of {declared} declared frames can be decoded" if total < declared else ""
    if damage:
        log.warning("%s: damaged: %s", path, damage)
    indices = _union(total, frames)
    wanted, pixels, seconds, size = set(indices.tolist()), {}, {}, None
    with av.open(str(path), metadata_errors="replace") as container, contextlib.suppress(av.FFmpegError):
        for i, frame in enumerate(_decode(container)):
            if i in wanted:
                size = size or (frame.width, frame.height)  # a stream may change its size on the way
                pixels[i] = frame.reformat(*size, format="rgb24").to_ndarray()
                seconds[i] = float("nan") if frame.time is None else frame.time
                if len(pixels) == len(wanted):
                    break
    if len(pixels) < len(wanted):
        raise VideoError(f"{path}: {total} frames were counted, then only {len(pixels)} of {len(wanted)} could be read")
    out = np.stack([pixels[i] for i in indices.tolist()])
    return Video(
        path=str(path),
        frames=out,
        indices=indices,
        pts_seconds=np.array([seconds[i] for i in indices.tolist()]),
        fps=fps,
        size=out.shape[1:3],
        total=total,
        decoder="pyav",
        damage=damage,
    )


def _decode(container: Any) -> Any:
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
            yield from packet.decode()
        except av.InvalidDataError:
            continue
        except EOFError:
            return


def _count_pyav(path: Path) -> tuple[int, int, float | None]:
    """Frames that can be decoded, frames that the container declares (0: it does not), frames a second."""
    import av

    total = 0
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate) if stream.average_rate else None
        with contextlib.suppress(av.FFmpegError):
            for _ in _decode(container):
                total += 1
        return total, stream.frames, fps


def _read_folder(path: Path, frames: int | Sequence[int], size: tuple[int, int] | None) -> Video:
    from PIL import Image, UnidentifiedImageError

    files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: f.name)
    if not files:
        raise VideoError(f"{path}: needed a folder of frame images ({' '.join(IMAGE_SUFFIXES)}), found none")
    indices = _union(len(files), frames)
    pixels, source = [], (0, 0)
    for i in indices.tolist():
        try:
            image = np.asarray(Image.open(files[i]).convert("RGB"))[None]
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise VideoError(f"{files[i]}: not a readable image: {_line(error)}") from error
        source = source if pixels else image.shape[1:3]
        pixels.append(resize_frames(image, size) if size else image)
        if pixels[-1].shape != pixels[0].shape:
            raise VideoError(
                f"{files[i]}: needed {source[1]}x{source[0]} pixels as the first image, got "
                f"{image.shape[2]}x{image.shape[1]}"
            )
    return Video(
        path=str(path),
        frames=np.concatenate(pixels),
        indices=indices,
        pts_seconds=np.full(len(indices), np.nan),
        fps=None,
        size=source,
        total=len(files),
        decoder="images",
    )


def write_video(path: str | Path, frames: np.ndarray, fps: int = 8, codec: str = "libx264", **options: str) -> Path:
    """Encode (T H W 3) uint8 RGB frames to a video file; the suffix picks the container. `options` go to the codec."""
    import av

    path = Path(path)
    with whole(path) as part, av.open(str(part), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
