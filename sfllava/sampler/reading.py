"""Video file or folder of images -> frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from sfllava.files import is_url
from sfllava.sampler.container import first_line, probe_container
from sfllava.sampler.decord import read_with_decord
from sfllava.sampler.images import read_image_folder
from sfllava.sampler.pyav import read_with_pyav
from sfllava.sampler.video import Decoder, Video, VideoError
from sfllava.types import SfllavaError

_PYAV_ONLY = {"av1", "libdav1d", "gif"}  # decord has no AV1, and reads GIFs frame by frame with wrong counts
log = logging.getLogger(__name__)


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
            return read_image_folder(path, frames, size)
        if not path.is_file():
            raise VideoError(f"{path}: needed a file, got a pipe, socket or device")
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: the file is empty (0 bytes)")
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    about = probe_container(path)
    # decord turns frames for some containers' rotation metadata and not for others': those files go to PyAV
    if decoder == "decord" or (decoder == "auto" and about.codec not in _PYAV_ONLY and not about.turns):
        try:
            return read_with_decord(path, about, frames, size)
        except Exception as error:
            if decoder == "decord":
                raise VideoError(f"{path}: decord cannot read it: {first_line(error)}") from error
            log.info("%s: decord cannot read it (%s), trying PyAV", path, first_line(error))
    return read_with_pyav(path, about, frames, size)
