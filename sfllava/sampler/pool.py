"""Decoding in worker processes: a decoder that hangs or crashes costs one video, never the run.

decord can spin for ever in native code while it holds the GIL, so no thread or Python signal stops it. Each
worker therefore asks the kernel to end it (SIGALRM at its default action) when a video takes too long; the
parent sees the pipe close, reports the video and starts another worker. Workers are plain subprocesses that
speak lines of JSON and raw pixels, so a script needs no `if __name__ == "__main__"` and nothing is pickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sfllava.sampler.reading import read_video
from sfllava.sampler.video import Decoder, Video, VideoError


class DecodePool:
    """Reads videos in `decoders` processes; each video may take `seconds` (wall clock).

    Use as a context manager. `submit` returns a Future of a Video, whose exception is a VideoError.
    """

    def __init__(
        self, decoders: int = 2, seconds: float = 120.0, empty: Callable[[tuple[int, ...]], np.ndarray] | None = None
    ) -> None:
        self.seconds = seconds
        self._empty = empty or (lambda shape: np.empty(shape, np.uint8))
        self._threads = ThreadPoolExecutor(decoders, "sfllava-decode")
        self._local = threading.local()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def submit(
        self,
        path: str | Path,
        frames: int | Sequence[int],
        size: tuple[int, int] | None = None,
        decoder: Decoder = "auto",
    ) -> Future[Video]:
        """`read_video(path, frames, size=size, decoder=decoder)`, in a worker."""
        return self._threads.submit(self._read, str(path), frames, size, decoder)

    def _read(self, path: str, frames: int | Sequence[int], size: tuple[int, int] | None, decoder: Decoder) -> Video:
        process: subprocess.Popen[bytes] | None = getattr(self._local, "process", None)
        if process is None or process.poll() is not None:
            self._local.process = process = self._start()
        assert process.stdin is not None and process.stdout is not None
        task = {"path": path, "frames": frames, "size": size, "decoder": decoder, "seconds": self.seconds}
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            head = json.loads(process.stdout.readline())
            if "error" in head:
                raise VideoError(head["error"])
            pixels = self._empty(tuple(head["shape"]))
            if process.stdout.readinto(pixels.reshape(-1)) < pixels.size:  # type: ignore[attr-defined]
                raise EOFError
        except (BrokenPipeError, EOFError, json.JSONDecodeError) as error:
            process.kill()
            code = process.wait()
            self._processes.discard(process)
            if code == -signal.SIGALRM:
                raise VideoError(f"{path}: decoding took longer than {self.seconds:g} s and was ended") from error
            reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise VideoError(f"{path}: the decoder process died ({reason})") from error
        video = head["video"]
        return Video(
            **{**video, "size": tuple(video["size"])},
            frames=pixels,
            indices=np.array(head["indices"], np.int64),
            pts_seconds=np.array([np.nan if t is None else t for t in head["pts_seconds"]], np.float64),
        )

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            # -P: a file called decord.py in the current folder must not be run
            [sys.executable, "-P", "-m", "sfllava.sampler.pool", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # an interrupt from the keyboard is the parent's to handle
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._processes.add(process)
        return process

    def close(self) -> None:
        """Drop what is not started yet and end the workers."""
        for process in list(self._processes):
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in list(self._processes):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
        self._processes.clear()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(parent: int) -> None:
    """The worker: a task a line on stdin; a line of JSON, then raw pixels, on stdout."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decord prints pieces of bad files; they must not land among the pixels
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker outlives its parent
        if os.getppid() != parent:
            return
        with contextlib.suppress(
            OSError
        ):  # where a video takes all memory, the kernel ends this one and not the parent
            Path("/proc/self/oom_score_adj").write_text("1000")
    timed = hasattr(signal, "SIGALRM")
    for line in sys.stdin.buffer:
        task = json.loads(line)
        size = tuple(task["size"]) if task["size"] else None
        if timed:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, task["seconds"])
        try:
            video = read_video(task["path"], task["frames"], size=size, decoder=task["decoder"])
        except Exception as error:
            text = str(error) if isinstance(error, VideoError) else f"{task['path']}: {type(error).__name__}: {error}"
            video, head = None, {"error": " ".join(text.split())}
        else:
            plain = {k: getattr(video, k) for k in ("path", "fps", "size", "total", "decoder", "damage")}
            seconds = [None if np.isnan(t) else float(t) for t in video.pts_seconds]
            head = {
                "video": plain,
                "shape": video.frames.shape,
                "indices": video.indices.tolist(),
                "pts_seconds": seconds,
            }
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps(head).encode() + b"\n")
        if video is not None:
            out.write(np.ascontiguousarray(video.frames).data)
        out.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
