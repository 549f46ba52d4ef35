"""Whether each decoder reads small clips that are written here, in processes as in a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sfllava.cli.diagnosis.finding import Finding

CLIPS = {"H.264": ("clip.mp4", "libx264"), "VP9": ("clip.webm", "libvpx-vp9")}
_DECODERS = ("decord", "pyav")
_SECONDS = 20
_FRAMES = 16


class Decoding:
    """Clips that are being read, which goes on while other things are checked; a context manager."""

    def __enter__(self) -> Decoding:
        self._open, self._waiting, self._unwritten, self._failed = ExitStack(), {}, [], ""
        try:
            self._start()
        except Exception as error:  # a finding, as whatever else is wrong
            self._failed = f"{type(error).__name__}: {error}"
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start(self) -> None:
        import numpy as np

        from sfllava.sampler.pool import DecodePool
        from sfllava.sampler.writing import write_video

        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        pool = self._open.enter_context(DecodePool(len(_DECODERS), _SECONDS))
        frames = np.broadcast_to(_levels()[:, None, None, None], (_FRAMES, 64, 64, 3))
        for name, (file, codec) in CLIPS.items():
            try:
                clip = write_video(folder / file, frames, codec=codec)
            except Exception:
                self._unwritten.append(name)
                continue
            self._waiting |= {(decoder, name): pool.submit(clip, 4, decoder=decoder) for decoder in _DECODERS}

    def findings(self) -> Iterator[Finding]:
        """Yield what each decoder reads."""
        if self._failed:
            yield Finding("decoders", f"no clip can be read: {self._failed}", "broken")
            return
        for decoder in _DECODERS:
            own = {name: _problem(future) for (other, name), future in self._waiting.items() if other == decoder}
            yield _describe(decoder, own)
        if self._unwritten:
            names = " and no ".join(self._unwritten)
            yield Finding("encoders", f"PyAV writes no {names}, which only `sfllava render` needs", "info")


def _describe(decoder: str, problems: dict[str, str]) -> Finding:
    """Return the finding about a decoder; problems are by codec, and empty where it reads the clip."""
    if not problems:
        return Finding(decoder, "not tried, since no clip can be written", "warning")
    wrong = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    good = [name for name, problem in problems.items() if not problem]
    text = f"reads {' and '.join(good)}" if good else "reads no clip"
    if not wrong:
        return Finding(decoder, f"{text} (tried on clips of {_FRAMES} frames)")
    if decoder == "decord":
        return Finding(decoder, f"{text}; {'; '.join(wrong)}; what it cannot read is left to PyAV", "warning")
    return Finding(decoder, f"{text}; {'; '.join(wrong)}", "warning" if good else "broken")


def _problem(future: Any) -> str:
    """Return what is wrong with the frames that were read of a clip, or an empty text."""
    levels = _levels()
    try:
        video = future.result(timeout=_SECONDS + 10)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if video.total != _FRAMES or len(video.frames) != 4:
        return f"{len(video.frames)} of 4 frames, of a video of {video.total} instead of {_FRAMES} frames"
    off = abs(video.frames.mean(axis=(1, 2, 3)) - levels[video.indices]).max()
    return f"pixels differ by up to {off:.0f} of 255" if off > 12 else ""


def _levels() -> Any:
    """Return the grey level of each frame."""
    import numpy as np

    return np.arange(_FRAMES, dtype=np.uint8) * 15 + 10
