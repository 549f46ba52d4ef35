"""A corpus of odd, damaged and false videos, made by rule and seeded; each frame says by its grey which one it is.

The frames of a source are `level(i)` all over, with a white corner at the top left: so the number, the order and the
way up of what comes back can be read from the pixels, whatever a lossy codec did to them.
"""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise, zip_longest
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from PIL import Image

from sfllava.sampler import IMAGE_SUFFIXES

FRAMES, WIDTH, HEIGHT, RATE = 16, 64, 48, 8
_UNEVEN = (0, 1, 2, 7, 8, 12, 13, 20, 21, 22, 23, 40, 44, 45, 60, 61)  # in eighths of a second


@dataclass(frozen=True)
class Truth:
    """What must come back: how many frames, (height, width) upright, quarter turns clockwise, seconds where known."""

    frames: int = FRAMES
    size: tuple[int, int] = (HEIGHT, WIDTH)
    turns: int = 0
    seconds: tuple[float, ...] = ()
    first: int = 0
    """Which frame of the source comes first"""
    loose: bool = False
    """A codec that keeps the corner, but no exact grey (a picture of very few pixels)"""


@dataclass(frozen=True)
class Item:
    """A file of the corpus. `truth` of a whole video, or of the one that a damaged one was made of."""

    rule: str
    name: str
    """Its path below the folder, as a question file would name it"""
    expect: Literal["whole", "damaged", "error", "other"]
    """All of the truth; a part of it or an error; an error; whatever ends"""
    truth: Truth = Truth()
    intact: bool = False
    """Only what is around the pictures was damaged: a frame that comes is as it was"""


Write = Callable[[Path], None]
Plan = tuple[Item, Write]


def level(i: int) -> int:
    """The grey of a frame."""
    return 20 + 14 * i


def render(frames: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(T H W 3): each frame its grey, with a white quarter at the top left where there is room."""
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
        if codec == "libx265" and len(frames) < 3:  # with B-frames x265 leaves their times of decoding unset
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


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w", format=path.suffix[1:].replace("mkv", "matroska")) as out:
        for packet in _sound(out):
            out.mux(packet)


def _gif(path: Path, frames: np.ndarray | None = None, ticks: Sequence[int] | None = None) -> None:
    """With a palette of its own for each frame, so that no grey is lost."""
    # in hundredths of a second, as a GIF counts
    images = [Image.fromarray(f).convert("P", palette=Image.Palette.ADAPTIVE) for f in (render() if frames is None else frames)]  # fmt: skip
    steps = [_cs(b - a) * 10 for a, b in pairwise(ticks)] if ticks else [120] * (len(images) - 1)
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=[*steps, 120], loop=0)


def _cs(ticks: int) -> int:
    return ticks * 100 // RATE


def turn(data: bytes, turns: int) -> bytes:
    """An mp4 whose track header says that it is to be shown turned clockwise."""
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[turns]
    return _patch(data, b"tkhd", 40, struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30))


def _edited(data: bytes, skipped: int, dropped: int) -> bytes:
    """An mp4 whose edit list shows only a part of it, as a phone or ffmpeg cuts one without encoding it anew."""
    (timescale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    (duration, start) = struct.unpack_from(">Ii", data, data.index(b"elst") + 12)
    duration -= (skipped + dropped) * 1000 // RATE
    return _patch(data, b"elst", 8, struct.pack(">Ii", duration, start + skipped * timescale // RATE))


def _patch(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(box) + 4 + offset
    return data[:at] + value + data[at + len(value) :]


def _even(frames: int = FRAMES) -> tuple[float, ...]:
    return tuple(i / RATE for i in range(frames))


# --- whole ones -------------------------------------------------------------------------------------------------

# (codec, pixel format, suffixes that can hold it); lossless ones keep the smallest pictures exactly
_CODECS = [
    ("libx264", "yuv420p", "mp4 mov mkv avi m4v"),
    ("libx265", "yuv420p", "mp4 mkv mov"),
    ("libsvtav1", "yuv420p", "mp4 webm mkv"),
    ("libvpx-vp9", "yuv420p", "webm mp4 mkv"),
    ("mjpeg", "yuvj420p", "avi mov mkv"),
    ("mpeg4", "yuv420p", "avi mp4 m4v mkv"),
    ("libvpx", "yuv420p", "webm mkv"),
    ("ffv1", "yuv444p", "mkv avi"),
    ("png", "rgb24", "mov avi"),
    ("mpeg2video", "yuv420p", "mkv mp4"),
    ("prores", "yuv422p10le", "mov"),
    ("qtrle", "rgb24", "mov"),
    ("huffyuv", "rgb24", "avi"),
    ("rawvideo", "bgr24", "avi"),
]
_DEEP = [
    ("libx264", "yuv420p10le", "mp4"),
    ("libx265", "yuv420p10le", "mp4"),
    ("libsvtav1", "yuv420p10le", "mkv"),
    ("ffv1", "yuv422p10le", "mkv"),
    ("libx264", "yuv422p", "mp4"),
    ("libx264", "yuv444p", "mp4"),
    ("libx264", "yuvj420p", "mp4"),
]
_SMALL = [
    ("ffv1", "yuv444p", "mkv"), ("libx264", "yuv444p", "mp4"), ("png", "rgb24", "mov"), ("mjpeg", "yuvj444p", "avi"),
    ("libvpx-vp9", "yuv444p", "webm"), ("gif", "", "gif"),
]  # fmt: skip
_SIZES = [(1, 1), (17, 31), (1024, 2), (2, 2), (2, 1024), (31, 17), (640, 8), (8, 640)]
_NAMES = [
    "two words.mp4", 'a "quoted" one.mp4', "it's.mp4", "two\nlines.mp4", "100%.mp4", "%d.mp4", "-leading.mp4", "--help.mp4",
    "🎬🐈.mp4", "名前.mp4", "видео.mp4", "فيديو.mp4", "e\u0301te\u0301.mp4", "comma, here.mp4", "semi;colon.mp4",
    "back\\slash.mp4", "tab\there.mp4", "#hash?query=1.mp4", "12:30:05.mp4", "http:x.mp4", "$HOME `id`.mp4", "[a-z]*.mp4",
    " space in front.mp4", "{question} <video>.mp4", "dots...mp4", "UPPER.MP4", "%03d.gif", "x%d.gif", "=1+1.mp4", "\r\n.mp4",
    "x" * 240 + ".mp4", "長" * 80 + ".mp4", "null.mp4", "1.mp4",
]  # fmt: skip


def _wholes() -> Iterator[Plan]:
    for codec, pix_fmt, suffixes in _CODECS:
        for suffix in suffixes.split():
            item = Item("codec and container", f"codecs/{codec}.{suffix}", "whole", Truth(seconds=_even()))
            yield item, lambda path, c=codec, p=pix_fmt: encode(path, c, p)
    yield Item("codec and container", "codecs/still.gif", "whole", Truth()), _gif
    for codec, pix_fmt, suffix in _DEEP:
        item = Item("depth and chroma", f"depths/{codec}-{pix_fmt}.{suffix}", "whole", Truth(seconds=_even()))
        yield item, lambda path, c=codec, p=pix_fmt: encode(path, c, p)
    for codec, pix_fmt, suffix in _SMALL:
        for w, h in _SIZES:
            item = Item("odd size", f"sizes/{codec}-{w}x{h}.{suffix}", "whole", Truth(size=(h, w), loose=min(w, h) < 4))
            yield item, lambda path, c=codec, p=pix_fmt, w=w, h=h: _any(path, c, p, render(FRAMES, w, h))
    for count in (1, 2, 3):
        for codec, pix_fmt, suffix in [(c, p, s.split()[0]) for c, p, s in _CODECS[:8]] + [("gif", "", "gif")]:
            item = Item("few frames", f"few/{codec}-{count}.{suffix}", "whole", Truth(count))
            yield item, lambda path, c=codec, p=pix_fmt, n=count: _any(path, c, p, render(n))
    seconds = tuple(tick / RATE for tick in _UNEVEN)
    for codec, suffix in (("libx264", "mp4"), ("libvpx-vp9", "webm"), ("gif", "gif"), ("libx264", "mkv"), ("libx265", "mov"), ("libsvtav1", "mp4")):  # fmt: skip
        steps = [_cs(b - a) / 100 for a, b in pairwise(_UNEVEN)]
        times = (0.0, *accumulate(steps)) if codec == "gif" else seconds
        item = Item("variable rate", f"rates/{codec}.{suffix}", "whole", Truth(seconds=times))
        yield item, lambda path, c=codec: _any(path, c, "yuv420p", render(), _UNEVEN)
    late = [800 + i for i in range(FRAMES)]
    for suffix in ("mkv", "mp4"):  # an mp4 has an edit list for it
        item = Item("variable rate", f"rates/late.{suffix}", "whole", Truth())
        yield item, lambda path: encode(path, ticks=late)
    for turns in (1, 2, 3):
        for codec, suffix in (("libx264", "mp4"), ("libx265", "mp4"), ("libx264", "mov")):
            size = (WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH)
            item = Item(
                "rotated", f"turned/{codec}-{90 * turns}.{suffix}", "whole", Truth(FRAMES, size, turns, _even())
            )
            yield item, lambda path, c=codec, t=turns: _changed(path, lambda data: turn(data, t), c)
    for skipped, dropped in ((4, 0), (0, 4), (5, 3)):
        left = range(skipped, FRAMES - dropped)
        truth = Truth(len(left), seconds=_even(len(left)), first=skipped)
        for suffix, codec in (("mp4", "libx264"), ("mov", "libx265")):
            item = Item("cut by an edit list", f"edited/{skipped}-{dropped}.{suffix}", "whole", truth)
            yield item, lambda path, c=codec, s=skipped, d=dropped: _changed(path, lambda data: _edited(data, s, d), c)
    for name, options in (
        ("b-frames", {"bf": "3", "g": "300"}), ("open-gop", {"x264-params": "open-gop=1:keyint=4:bframes=2"}),
        ("all-key", {"g": "1"}), ("refresh", {"x264-params": "intra-refresh=1:keyint=8"}),
    ):  # fmt: skip
        item = Item("order of frames", f"order/{name}.mp4", "whole", Truth(seconds=_even()))
        yield item, lambda path, o=options: encode(path, options=o)
    for suffix in ("mp4", "mkv", "mov"):
        item = Item("with sound", f"sound/first.{suffix}", "whole", Truth(seconds=_even()))
        yield item, lambda path: encode(path, audio=True)
    frag = {"movflags": "frag_keyframe+empty_moov"}
    yield Item("order of frames", "order/fragments.mp4", "whole"), lambda path: encode(path, container=frag)
    for true, false in (("mp4", "avi"), ("webm", "mp4"), ("gif", "mp4"), ("mp4", "gif"), ("mkv", "mov"), ("avi", "mkv"), ("mp4", "webm"), ("avi", "mp4")):  # fmt: skip
        codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "gif": "gif"}.get(true, "libx264")
        item = Item("wrong suffix", f"suffix/{true}-is-no.{false}", "whole")
        yield item, lambda path, c=codec, t=true: _as(path, t, c)
    for name in _NAMES:
        write = _gif if name.endswith("gif") else encode
        yield Item("odd name", name, "whole"), write
    for name in ("a/b/c/deep.mp4", "nested/1.mp4", "nested/\n/1.mp4", "no/suffix/v_x.y.mp4", " / .mp4", "-/-.mp4"):
        yield Item("nested folder", f"{name}", "whole"), encode
    for name in ("images", "images.mp4", "images 🎬"):
        item = Item("folder of images", f"{name}/frames", "whole", Truth())
        yield item, _images
    yield Item("link", "link/to-a-video.mp4", "whole"), _link_to_a_video


def _any(path: Path, codec: str, pix_fmt: str, frames: np.ndarray, ticks: Sequence[int] | None = None) -> None:
    if codec == "gif":
        _gif(path, frames, ticks)
    else:
        encode(path, codec, pix_fmt, frames, ticks=ticks)


def _as(path: Path, suffix: str, codec: str) -> None:
    true = path.with_suffix(f".true.{suffix}")
    _any(true, codec, "yuv420p", render())
    true.rename(path)


def _changed(path: Path, change: Callable[[bytes], bytes], codec: str = "libx264") -> None:
    encode(path, codec)
    path.write_bytes(change(path.read_bytes()))


def _images(path: Path) -> None:
    path.mkdir()
    for i, pixels in enumerate(render()):
        Image.fromarray(pixels).save(path / f"{i:03}{IMAGE_SUFFIXES[2]}")


def _link(to: str) -> Write:
    return lambda path: path.symlink_to(to)


def _link_to_a_video(path: Path) -> None:
    _as(path.with_name("target"), "mp4", "libx264")
    path.symlink_to("target")


# --- what is no video -------------------------------------------------------------------------------------------


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("video.mp4", b"\0" * 5000)
    return out.getvalue()


_FALSE: list[tuple[str, bytes]] = [
    ("empty.mp4", b""),
    ("text.mp4", b"this is no video\n" * 300),
    ("zip.mp4", _zip()),
    ("page.mp4", b"<!DOCTYPE html><html><body>403 Forbidden</body></html>" * 20),
    ("empty.webm", b""),
    ("one-byte.mp4", b"\0"),
    ("noise.mp4", random.Random(1).randbytes(5000)),
    ("noise.avi", random.Random(2).randbytes(5000)),
    ("zeros.mkv", bytes(5000)),
    ("json.mp4", b'{"error": "no such video"}'),
    ("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"),
    ("only-ftyp.mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp41"),
    ("riff.avi", b"RIFF\0\0\0\0AVI LIST"),
    ("magic.gif", b"GIF89a"),
    ("ebml.mkv", b"\x1aE\xdf\xa3" * 40),
    # lists of other files, which a video must not be
    ("playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nreal.mp4\n#EXT-X-ENDLIST\n"),
    ("list.mp4", b"ffconcat version 1.0\nfile real.mp4\n"),
    ("http.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"),
    ("manifest.mp4", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>'),
]


def _false() -> Iterator[Plan]:
    for name, data in _FALSE:
        yield Item("no video", f"false/{name}", "error"), lambda path, d=data: _bytes(path, d)
    for suffix in ("mp4", "mkv", "mov"):
        yield Item("sound only", f"sound/only.{suffix}", "error"), _audio_only
    for kind in ("PNG", "JPEG"):  # one picture: ffmpeg takes it for a film of one frame
        item = Item("one picture", f"false/{kind}.mp4", "other")
        yield item, lambda path, k=kind: Image.fromarray(render(1)[0]).save(path, k)
    special: list[tuple[str, Write]] = [
        ("fifo.mp4", os.mkfifo),
        ("nowhere.mp4", _link("nowhere at all")),
        ("itself.mp4", _link("itself.mp4")),
        ("folder.mp4", Path.mkdir),
        ("zero.mp4", _link("/dev/zero")),
        ("secret.mp4", _secret),
    ]
    for name, write in special:
        yield Item("no file", f"special/{name}", "error"), write


def _bytes(path: Path, data: bytes) -> None:
    if data.startswith((b"#EXTM3U", b"ffconcat")) and not (real := path.with_name("real.mp4")).exists():
        encode(real)
    path.write_bytes(data)


def _secret(path: Path) -> None:
    encode(path)
    path.chmod(0)


# --- damaged ones -----------------------------------------------------------------------------------------------

_SOURCES: list[tuple[str, str, dict[str, str]]] = [
    ("mp4", "libx264", {}),
    ("fast.mp4", "libx264", {"movflags": "faststart"}),
    ("webm", "libvpx-vp9", {}),
    ("avi", "mjpeg", {}),
    ("mkv", "ffv1", {}),
    ("gif", "gif", {}),
    ("hevc.mov", "libx265", {}),
    ("av1.mp4", "libsvtav1", {}),
]
_PARTS = (0.5, 0.98, 0.05, 0.8, 0.3, 0.9, 0.999)


def _source(folder: Path, suffix: str, codec: str, container: dict[str, str]) -> bytes:
    path = folder / f".source.{suffix}"
    if codec == "gif":
        _gif(path)
    else:
        pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "yuv444p"}.get(codec, "yuv420p")
        # each frame by itself costs some bytes, so that there is something to damage
        encode(path, codec, pix_fmt, options={"g": "4"}, container=container)
    data = path.read_bytes()
    path.unlink()
    return data


def _damaged() -> Iterator[Plan]:
    for part in _PARTS:
        for suffix, codec, container in _SOURCES:
            item = Item("cut off", f"cut/{part}.{suffix}", "damaged", intact=True)
            yield item, _spoil(suffix, codec, container, lambda data, p=part: data[: int(p * len(data))])
    for seed in range(6):
        for suffix, codec, container in _SOURCES[:6]:
            for part, (start, end), flips in (
                ("head", (0.0, 0.1), 3),
                ("middle", (0.2, 0.8), 6),
                ("end", (0.9, 1.0), 3),
            ):
                item = Item(f"bytes flipped in the {part}", f"flipped/{part}-{seed}.{suffix}", "damaged")
                flip = _flip(f"{suffix} {part} {seed}", start, end, flips)
                yield item, _spoil(suffix, codec, container, flip)
    for seed in range(2):
        for suffix, codec, container in _SOURCES[:6]:
            item = Item("a hole of zeros", f"holes/{seed}.{suffix}", "damaged")
            yield item, _spoil(suffix, codec, container, lambda data, s=seed: _hole(data, s))
    big, most = struct.pack(">I", 0x7FFFFFF0), b"\xff\xff\xff\xff"
    edits: list[tuple[str, bytes, int, bytes]] = [
        ("width and height", b"tkhd", 76, struct.pack(">II", 60000 << 16, 60000 << 16)),
        ("duration", b"mvhd", 16, most),
        ("count of sizes", b"stsz", 8, big),
        ("coded size", b"avc1", 24, struct.pack(">HH", 65535, 65535)),
        ("media duration", b"mdhd", 16, most),
        ("timescale of zero", b"mdhd", 12, bytes(4)),
        ("timescale", b"mdhd", 12, most),
        ("count of times", b"stts", 4, big),
        ("frames of a time", b"stts", 8, big),
        ("count of chunks", b"stco", 4, big),
        ("chunk far away", b"stco", 8, big),
        ("chunk table", b"stsc", 12, big),
        ("size of all frames", b"stsz", 4, big),
        ("size of a frame", b"stsz", 12, big),
        ("few sizes", b"stsz", 8, struct.pack(">I", 5)),
        ("more sizes", b"stsz", 8, struct.pack(">I", 20)),
        ("handler", b"hdlr", 8, b"soun"),
        ("length of a box", b"moov", -8, most),
        ("length of the data", b"mdat", -8, struct.pack(">I", 9)),
        ("codec", b"avc1", 0, b"\0" * 8),
        ("name of the codec", b"avc1", -4, b"hvc1"),
    ]
    for name, box, offset, value in edits:
        item = Item("huge or false numbers", f"huge/{name.replace(' ', '-')}.mp4", "damaged", intact=True)
        yield item, _spoil("fast.mp4", "libx264", {"movflags": "faststart"}, lambda d, b=box, o=offset, v=value: _patch(d, b, o, v))  # fmt: skip
    little = struct.pack("<II", 65000, 65000)
    for name, suffix, codec, change in (
        ("screen.gif", "gif", "gif", lambda d: d[:6] + struct.pack("<HH", 15000, 15000) + d[10:]),
        ("screen-most.gif", "gif", "gif", lambda d: d[:6] + most + d[10:]),
        ("frames.avi", "avi", "mjpeg", lambda d: _patch(d, b"avih", 20, b"\xff\xff\xff\x7f")),
        ("size.avi", "avi", "mjpeg", lambda d: _patch(_patch(d, b"avih", 36, little), b"strf", 8, little)),
        ("rate.avi", "avi", "mjpeg", lambda d: _patch(d, b"strh", 24, bytes(8))),
        ("length.mkv", "mkv", "ffv1", lambda d: _patch(d, b"\x44\x89", -2, struct.pack(">d", 1e300))),
    ):
        item = Item("huge or false numbers", f"huge/{name}", "damaged", intact=True)
        yield item, _spoil(suffix, codec, {}, change)


def _spoil(suffix: str, codec: str, container: dict[str, str], change: Callable[[bytes], bytes]) -> Write:
    return lambda path: _bytes(path, change(_source(path.parent, suffix, codec, container)))


def _flip(seed: str, start: float, end: float, flips: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        random_, out = random.Random(seed), bytearray(data)
        for _ in range(flips):
            out[int(len(out) * random_.uniform(start, end))] ^= random_.randrange(1, 256)
        return bytes(out)

    return change


def _hole(data: bytes, seed: int) -> bytes:
    length = len(data) // 5
    start = random.Random(seed).randrange(len(data) // 5, len(data) - length)
    return data[:start] + bytes(length) + data[start + length :]


def make_corpus(folder: Path, count: int) -> list[Item]:
    """Write up to `count` files below a folder, taking turns among the rules, and return what they are."""
    rules: dict[str, list[Plan]] = {}
    for plan in (*_wholes(), *_false(), *_damaged()):
        rules.setdefault(plan[0].rule, []).append(plan)
    return _write(folder, [plan for row in zip_longest(*rules.values()) for plan in row if plan][:count])


def make_items(folder: Path, names: Collection[str]) -> list[Item]:
    """Write the files of these names below a folder, and return what they are."""
    return _write(folder, [plan for plan in (*_wholes(), *_false(), *_damaged()) if plan[0].name in names])


def _write(folder: Path, plans: list[Plan]) -> list[Item]:
    for item, write in plans:
        path = folder / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    return [item for item, _ in plans]
