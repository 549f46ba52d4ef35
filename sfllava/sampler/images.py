"""Reading a folder of frame images as a video, and resizing frames, with PIL."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from sfllava.sampler import IMAGE_SUFFIXES
from sfllava.sampler.container import MAX_FRAME_PIXELS, first_line
from sfllava.sampler.sampling import Selection
from sfllava.sampler.video import Video, VideoError

FrameSize = tuple[int, int] | int  # (height, width), or the shorter of the two where the aspect ratio is kept
RESIZE_BYTES = 1 << 28  # decoders keep up to so many bytes of frames before they resize them
_MAX_FOLDER_PIXELS = 1 << 30  # of the sampled images together, where they keep their size: 3 GiB


def read_image_folder(path: Path, selection: Selection, size: FrameSize | None) -> Video:
    """Sample frames of a folder of images, sorted by file name.

    Args:
        path: the folder.
        selection: the frames to read.
        size: what to resize the images to, as `resize_frames` takes it; None to keep them. All must then have the
            same size.

    Returns:
        The sampled frames; they have times if the clip has a frame rate.

    Raises:
        VideoError: the folder has no image, or an image cannot be read, is too large or has another size.
    """
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: f.name)
    if not files:
        raise VideoError(f"{path}: needed a folder of frame images ({' '.join(IMAGE_SUFFIXES)}), found none")
    indices, span = selection.select(len(files), None)
    fps = selection.clip.fps if selection.clip else None
    images, source = [], (0, 0)
    for i in indices.tolist():
        image = _read_image(files[i], 1 if size else len(indices))[None]
        source = source if images else image.shape[1:3]
        images.append(resize_frames(image, size) if size else image)
        if images[-1].shape != images[0].shape:
            raise VideoError(
                f"{files[i]}: needed {source[1]}x{source[0]} pixels as the first image, got "
                f"{image.shape[2]}x{image.shape[1]}"
            )
    return Video(
        path=str(path),
        frames=np.concatenate(images),
        indices=indices,
        pts_seconds=indices / fps if fps else np.full(len(indices), np.nan),
        fps=fps,
        size=source,
        total=len(files),
        decoder="images",
        span=span,
    )


def _read_image(file: Path, count: int) -> np.ndarray:
    """(H W 3) uint8 of an image file; `count` images of its size must fit into memory together."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():  # PIL warns below our own limit
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
        with opened:  # only the header was read so far: a small file can declare an image that exceeds any memory
            pixels, got = opened.width * opened.height, f"{opened.width}x{opened.height}"
            if pixels > MAX_FRAME_PIXELS:
                raise VideoError(f"{file}: needed an image of at most {MAX_FRAME_PIXELS:,} pixels, got {got}")
            if pixels * count > _MAX_FOLDER_PIXELS:
                raise VideoError(
                    f"{file}: needed at most {_MAX_FOLDER_PIXELS:,} pixels in all images together, got {count} of "
                    f"{got}; pass a size to resize each image as it is read"
                )
            return np.asarray(opened.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{file}: not a readable image: {first_line(error)}") from error


def resize_frames(frames: np.ndarray, size: FrameSize) -> np.ndarray:
    """Resize frames with PIL's default filter.

    Args:
        frames: (T H W 3) uint8.
        size: (h, w), regardless of the aspect ratio; or one number, to which the shorter of the two is resized while
            the aspect ratio is kept, the longer one truncated to whole pixels.

    Returns:
        (T h w 3) uint8; `frames` itself if it has that size.
    """
    from PIL import Image

    if isinstance(size, int):
        height, width = frames.shape[1:3]
        shorter = min(height, width)
        size = (size * height // shorter, size * width // shorter)
    if frames.shape[1:3] == size:
        return frames
    out = np.empty((len(frames), *size, 3), np.uint8)

    def resize(i: int) -> None:  # PIL releases the GIL meanwhile
        out[i] = np.asarray(Image.fromarray(frames[i]).resize((size[1], size[0])))

    list(_threads().map(resize, range(len(frames))))
    return out


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), "sfllava-resize")
