"""Rendered videos whose frames encode their index as a grey level, and what must be read from them.

Frame i has the grey `level(i)` everywhere except for a white top left corner, so the pixels show the number, order and
orientation of the frames, even after a lossy codec.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from PIL import Image

FRAMES, WIDTH, HEIGHT, RATE = 16, 64, 48, 8
UNEVEN = (0, 1, 2, 7, 8, 12, 13, 20, 21, 22, 23, 40, 44, 45, 60, 61)  # in eighths of a second


@dataclass(frozen=True)
class Truth:
    """What a reader must return for a video.

    Attributes:
        frames: the number of frames.
        size: (height, width) when shown upright.
        turns: quarter turns clockwise.
        seconds: the time of each frame, empty if unknown.
        first: the index in the source of the first frame.
        loose: whether the codec keeps the corner but not the exact grey (frames of very few pixels).
    """

    frames: int = FRAMES
    size: tuple[int, int] = (HEIGHT, WIDTH)
    turns: int = 0
    seconds: tuple[float, ...] = ()
    first: int = 0
    loose: bool = False


@dataclass(frozen=True)
class Item:
    """A file of the corpus.

    Attributes:
        rule: the kind of file.
        name: its path below the folder, as a question file would name it.
        expect: what reading it must give: the whole truth; a part of it or an error; an error; or any result.
        truth: of an intact video, or of the source of a damaged one.
        intact: whether the damage is only outside the coded frames, so that every decoded frame equals the source's.
    """

    rule: str
    name: str
    expect: Literal["whole", "damaged", "error", "other"]
    truth: Truth = Truth()
    intact: bool = False


Write = Callable[[Path], None]
Plan = tuple[Item, Write]


def level(i: int) -> int:
    """Return the grey level of frame i."""
    return 20 + 14 * i


def render(frames: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return frames (T H W 3) of one grey each, with a white top left corner where there is room."""
    out = np.empty((frames, height, width, 3), np.uint8)
    for i in range(frames):
        out[i] = level(i)
        out[i, : height // 4, : width // 4] = 255
    return out


def encode(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    frames: np.ndarray | None = None,
    *,
    ticks: Sequence[int] | None = None,
    audio: bool = False,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> None:
    """Write a video; `ticks` are the frames' times in eighths of a second."""
    frames = render() if frames is None else frames
    formats = {".m4v": "mp4", ".gif": "gif", ".mkv": "matroska"}
    suffix = path.suffix.lower()
    with av.open(str(path), "w", format=formats.get(suffix, suffix[1:]), options=container or {}) as out:
        sound = _sound(out) if audio else []
        if codec == "libx265" and len(frames) < 3:  # with B-frames, x265 leaves decoding times unset
            options = {"x265-params": "bframes=0", **(options or {})}
        stream: Any = out.add_stream(codec, rate=RATE, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, RATE)
        for packet in sound:
            out.mux(packet)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = (ticks[i] if ticks else i), Fraction(1, RATE)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def _sound(out: Any, seconds: int = 1) -> list[Any]:
    stream = out.add_stream("aac", rate=8000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * seconds), np.float32), "fltp", "mono")
    frame.sample_rate = 8000
    return [*stream.encode(frame), *stream.encode()]


def encode_audio(path: Path) -> None:
    with av.open(str(path), "w", format=path.suffix[1:].replace("mkv", "matroska")) as out:
        for packet in _sound(out):
            out.mux(packet)


def write_gif(path: Path, frames: np.ndarray | None = None, ticks: Sequence[int] | None = None) -> None:
    """Write a GIF with one palette per frame, so that no grey level is lost."""
    # in hundredths of a second, as a GIF counts
    images = [Image.fromarray(f).convert("P", palette=Image.Palette.ADAPTIVE) for f in (render() if frames is None else frames)]  # fmt: skip
    steps = [hundredths(b - a) * 10 for a, b in pairwise(ticks)] if ticks else [120] * (len(images) - 1)
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=[*steps, 120], loop=0)


def hundredths(ticks: int) -> int:
    return ticks * 100 // RATE


def turn(data: bytes, turns: int) -> bytes:
    """Return an mp4 whose track header asks for a clockwise rotation by `turns` quarter turns."""
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[turns]
    return patch_box(data, b"tkhd", 40, struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30))


def cut_by_edit_list(data: bytes, skipped: int, dropped: int) -> bytes:
    """Return an mp4 whose edit list shows only part of it, as when a phone or ffmpeg cuts without re-encoding."""
    (timescale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    (duration, start) = struct.unpack_from(">Ii", data, data.index(b"elst") + 12)
    duration -= (skipped + dropped) * 1000 // RATE
    return patch_box(data, b"elst", 8, struct.pack(">Ii", duration, start + skipped * timescale // RATE))


def patch_box(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(box) + 4 + offset
    return data[:at] + value + data[at + len(value) :]


def even_seconds(frames: int = FRAMES) -> tuple[float, ...]:
    return tuple(i / RATE for i in range(frames))
