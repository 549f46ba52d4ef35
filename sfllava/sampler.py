"""Video file -> frames. The only module that imports decord and PyAV."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sfllava.disk import whole
from sfllava.types import SfllavaError, is_url

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_PYAV_ONLY = {"av1", "libdav1d", "gif"}  # decord has no AV1, and reads GIFs frame by frame with wrong counts
# What is opened as a video. Playlists (HLS, DASH, concat) are not: they would bring other files in its place
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,apng,mxf,nut,rm,dv,ivf,av1,obu,h264,hevc,m4v,mpegvideo,"
    "mjpeg,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe"
)
_MOST_PIXELS = 1 << 26  # 8192 x 8192; a damaged header can declare frames that no memory holds
_MOST_HELD = 1 << 30  # pixels of all images of a folder that are kept as they are, 3 GiB
_AT_ONCE = 1 << 28  # bytes of frames that wait to be resized
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
    what decord cannot (AV1, GIF, rotation, edit lists, damaged containers). Raises VideoError, which names the file.
    """
    if is_url(path):
        raise VideoError(f"{path}: needed a file on this machine, got a URL: download it first")
    path = Path(path)
    if not (isinstance(frames, int) or len(frames)) or min([frames] if isinstance(frames, int) else frames) < 1:
        raise SfllavaError(f"frames must be at least 1, got {frames}")
    try:
        if not path.exists():
            raise VideoError(f"{path}: no such video")
        if path.is_dir():
            return _read_folder(path, frames, size)
        if not path.is_file():
            raise VideoError(f"{path}: needed a file, got a pipe, socket or device")
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty (0 bytes)")
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    about = _probe(path)
    # decord turns frames for some containers' rotation metadata and not for others': those files go to PyAV
    if decoder == "decord" or (decoder == "auto" and about.codec not in _PYAV_ONLY and not about.turns):
        try:
            return _read_decord(path, about, frames, size)
        except Exception as error:
            if decoder == "decord":
                raise VideoError(f"{path}: decord cannot read it: {_line(error)}") from error
            log.info("%s: decord cannot read it (%s), trying PyAV", path, _line(error))
    return _read_pyav(path, about, frames, size)


def _line(error: BaseException) -> str:
    """The last line that says something: decord puts a native stack around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@dataclass(frozen=True)
class _About:
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


def _open(path: Path) -> Any:
    import av

    # absolute: 12:30.mp4 would be a protocol's address
    return av.open(str(path.absolute()), metadata_errors="replace", options={"format_whitelist": _CONTAINERS})


def _probe(path: Path) -> _About:
    import av

    try:
        with _open(path) as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
                raise VideoError(f"{path}: needed a video stream, got {kinds} streams only")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(f"{path}: no decoder knows how its video is coded")
            if (pixels := stream.width * stream.height) > _MOST_PIXELS:
                raise VideoError(
                    f"{path}: needed frames of at most {_MOST_PIXELS:,} pixels, got {stream.width}x{stream.height}"
                )
            ends = _ends(container, stream)
            frame = None
            with contextlib.suppress(av.FFmpegError):
                frame = next(container.decode(stream), None)
            # ffmpeg's angle is counter-clockwise, as numpy's rot90
            turns = round((frame.rotation if frame else 0) / 90) % 4
            fps = float(stream.average_rate) if stream.average_rate else None
            return _About(stream.codec_context.name, turns, stream.frames, fps, ends, pixels)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a readable video: {_line(error)}") from error


def _ends(container: Any, stream: Any) -> float:
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    with contextlib.suppress(KeyError, ValueError):  # Matroska's 00:00:02.000000000
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return math.nan


def _read_decord(path: Path, about: _About, frames: int | Sequence[int], size: tuple[int, int] | None) -> Video:
    import decord

    if about.frames > path.stat().st_size:  # it would take memory for all of them
        raise VideoError(f"{about.frames} declared frames are more than it has bytes")
    reader: Any = decord.VideoReader(str(path.absolute()), num_threads=1)
    total = len(reader)
    if total < about.frames:
        raise VideoError(f"only {total} of {about.frames} declared frames")
    indices = _union(total, frames)
    seconds = reader.get_frame_timestamp([*indices.tolist(), 0, total - 1]).astype(np.float64)
    (first, _), (last, end) = seconds[-2:]
    # it counts frames that an edit list cuts away (clips cut without encoding anew), and repeats others for them
    if first < 0 or last > about.ends - 1e-3:
        raise VideoError("some of its frames are not to be shown")
    if (np.diff(seconds[:-2, 0]) < 0).any() or end < _least(about):
        raise VideoError("its times are not those of its frames")
    at_once = max(1, _AT_ONCE // (3 * about.pixels or 1)) if size else total
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


def _least(about: _About) -> float:
    """When the last frame must have ended, at least, if the file is whole; NaN where nobody knows."""
    return about.ends - max(0.1, 1.5 / (about.fps or 1))


@dataclass
class _Tally:
    """What was met while decoding: packets that could not be, frames with gaps, packets not to be shown."""

    broken: int = 0
    gaps: int = 0
    hidden: int = 0
    end: float = 0.0


def _read_pyav(path: Path, about: _About, frames: int | Sequence[int], size: tuple[int, int] | None) -> Video:
    # A container's own count can be wrong (or missing: GIF, damaged files), so decode once to count what
    # there really is and once more for the wanted frames; only the latter are turned into pixels.
    tally = _Tally()
    with _open(path) as container:
        total = sum(1 for _ in _decode(container, tally))
    declared = max(0, about.frames - tally.hidden)
    if total == 0:
        raise VideoError(f"{path}: no frame can be decoded" + (f" of the {declared} declared" if declared else ""))
    damage = _damage(about, tally, total, declared)
    if damage:
        log.warning("%s: damaged: %s", path, damage)
    indices = _union(total, frames)
    wanted, pixels, seconds, source = set(indices.tolist()), {}, {}, None
    waiting: dict[int, np.ndarray] = {}
    with _open(path) as container:
        for i, frame in enumerate(_decode(container, _Tally())):
            if i not in wanted:
                continue
            source = source or (frame.width, frame.height)  # a stream may change its size on the way
            waiting[i] = np.rot90(frame.reformat(*source, format="rgb24").to_ndarray(), about.turns)
            seconds[i] = float("nan") if frame.time is None else frame.time
            upright, last = waiting[i].shape[:2], len(seconds) == len(wanted)
            if size and (last or sum(each.nbytes for each in waiting.values()) > _AT_ONCE):
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


def _damage(about: _About, tally: _Tally, total: int, declared: int) -> str:
    found = []
    if total < declared:
        found.append(f"only {total} of {declared} declared frames can be decoded")
    elif tally.broken:
        found.append(f"{tally.broken} of its packets cannot be decoded")
    elif tally.end < _least(about):
        found.append(f"it ends after {tally.end:.1f} of {about.ends:.1f} s")
    if tally.gaps:
        found.append(f"{tally.gaps} of its frames have gaps")
    return "; ".join(found)


def _decode(container: Any, tally: _Tally) -> Iterator[Any]:
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


def _read_folder(path: Path, frames: int | Sequence[int], size: tuple[int, int] | None) -> Video:
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: f.name)
    if not files:
        raise VideoError(f"{path}: needed a folder of frame images ({' '.join(IMAGE_SUFFIXES)}), found none")
    indices = _union(len(files), frames)
    pixels, source = [], (0, 0)
    for i in indices.tolist():
        image = _read_image(files[i], 1 if size else len(indices))[None]
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


def _read_image(file: Path, held: int) -> np.ndarray:
    """(H W 3) uint8 of an image file, of which so many as large are `held` in memory together. Raises VideoError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():  # its limit is above ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
        with opened:  # so far only the header was read: a small file can declare a picture that no memory holds
            declared, got = opened.width * opened.height, f"{opened.width}x{opened.height}"
            if declared > _MOST_PIXELS:
                raise VideoError(f"{file}: needed an image of at most {_MOST_PIXELS:,} pixels, got {got}")
            if declared * held > _MOST_HELD:
                raise VideoError(
                    f"{file}: needed at most {_MOST_HELD:,} pixels in all images together, got {held} of {got}; "
                    "a size to resize them to keeps them small"
                )
            return np.asarray(opened.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{file}: not a readable image: {_line(error)}") from error


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
