"""Reading a folder of frame images as a video."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfllava.sampler.container import MAX_FRAME_PIXELS, first_line
from sfllava.sampler.resizing import resize_frames
from sfllava.sampler.sampling import union_indices
from sfllava.sampler.video import IMAGE_SUFFIXES, Video, VideoError

_MOST_HELD = 1 << 30  # pixels of all images of a folder that are kept as they are, 3 GiB


def read_image_folder(path: Path, frames: int | Sequence[int], size: tuple[int, int] | None) -> Video:
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: f.name)
    if not files:
        raise VideoError(f"{path}: needed a folder of frame images ({' '.join(IMAGE_SUFFIXES)}), found none")
    indices = union_indices(len(files), frames)
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
            if declared > MAX_FRAME_PIXELS:
                raise VideoError(f"{file}: needed an image of at most {MAX_FRAME_PIXELS:,} pixels, got {got}")
            if declared * held > _MOST_HELD:
                raise VideoError(
                    f"{file}: needed at most {_MOST_HELD:,} pixels in all images together, got {held} of {got}; "
                    "a size to resize them to keeps them small"
                )
            return np.asarray(opened.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{file}: not a readable image: {first_line(error)}") from error
