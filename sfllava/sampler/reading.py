"""Video file or folder of images -> frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from sfllava.files import is_url
from sfllava.sampler.container import first_line, probe_container
from sfllava.sampler.decord import read_with_decord
from sfllava.sampler.images import FrameSize, read_image_folder
from sfllava.sampler.pyav import read_with_pyav
from sfllava.sampler.sampling import AnySample, SamplingError, Selection, to_samples
from sfllava.sampler.video import ClipError, Decoder, Video, VideoError
from sfllava.types import Clip

log = logging.getLogger(__name__)


def read_video(
    path: str | Path,
    frames: int | AnySample | Sequence[int | AnySample] = 50,
    *,
    size: FrameSize | None = None,
    decoder: Decoder = "auto",
    clip: Clip | None = None,
) -> Video:
    """Sample frames of a video file, or of a folder of frame images sorted by name.

    Args:
        path: the file or folder.
        frames: the number of frames to sample, a sample with a rule, or frames named one by one. If there are several,
            each frame is read only once; `Video.positions` finds the frames of one sample.
        size: (height, width) to resize each frame to, regardless of its aspect ratio; or the length of the shorter
            side, while the aspect ratio is kept; None to keep the frames.
        decoder: `decord`, `pyav`, or `auto`: decord, then PyAV for what decord cannot read (some rotated files, edit
            lists, damaged files).
        clip: the part of the video to sample; None for the whole video.

    Returns:
        The sampled frames, with their indices and times.

    Raises:
        VideoError: there is no video at `path`, no frame of it can be read, or the clip is outside it; the message
            names the file.
        SfllavaError: `frames` is below 1.
    """
    if is_url(path):
        raise VideoError(f"{path}: needed a file on this machine, got a URL: download it first")
    path = Path(path)
    selection = Selection(to_samples(frames), clip)
    try:
        return _read(path, selection, size, decoder)
    except SamplingError as error:
        raise ClipError(f"{path}: {error}") from error


def _read(path: Path, selection: Selection, size: FrameSize | None, decoder: Decoder) -> Video:
    try:
        if path.is_dir():
            return read_image_folder(path, selection, size)
        _check_file(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    info = probe_container(path)
    if decoder == "pyav":
        return read_with_pyav(path, info, selection, size)
    try:
        return read_with_decord(path, info, selection, size)
    except SamplingError:
        raise
    except Exception as error:
        if decoder == "decord":
            raise VideoError(f"{path}: decord cannot read it: {first_line(error)}") from error
        log.info("%s: decord cannot read it (%s), trying PyAV", path, first_line(error))
    return read_with_pyav(path, info, selection, size)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise VideoError(f"{path}: no such video")
    if not path.is_file():
        raise VideoError(f"{path}: needed a file, got a pipe, socket or device")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes)")
