"""Decoding in worker processes: a decoder that hangs or crashes costs one video, never the run.

decord can hang in native code while it holds the GIL, so no thread and no Python signal handler can stop it. Each
worker therefore asks the kernel to end it (SIGALRM with its default action) when a video takes too long. The parent
sees the pipe close, reports the video and starts another worker. Workers are plain subprocesses that exchange lines of
JSON and raw pixels: a script needs no `if __name__ == "__main__"`, and nothing is pickled.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.sampler.images import FrameSize
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import AnySample, FrameIndices, Sample, to_samples
from sfllava.sampler.video import ClipError, Decoder, Video, VideoError
from sfllava.types import Clip

_Process = subprocess.Popen[bytes]


class DecodePool:
    """Reads videos in worker processes; use it as a context manager.

    Args:
        decoders: the number of processes.
        seconds: the longest time that one video may take (wall clock).
        allocate: shape -> the uint8 array that receives the frames; `np.empty` by default.
    """

    def __init__(
        self, decoders: int = 2, seconds: float = 120.0, allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None
    ) -> None:
        self.seconds = seconds
        self._allocate = allocate or (lambda shape: np.empty(shape, np.uint8))
        self._threads = ThreadPoolExecutor(decoders, "sfllava-decode")
        self._local = threading.local()
        self._processes: set[_Process] = set()

    def submit(
        self,
        path: str | Path,
        frames: int | AnySample | Sequence[int | AnySample],
        size: FrameSize | None = None,
        decoder: Decoder = "auto",
        clip: Clip | None = None,
    ) -> Future[Video]:
        """Run `read_video` in a worker.

        Args:
            path, frames, size, decoder, clip: as in `read_video`.

        Returns:
            A future of the video. Its exception is a VideoError, also where the decoder hung or crashed.
        """
        samples = to_samples(frames)
        task = {
            "path": str(path),
            "samples": [asdict(one) for one in samples] if isinstance(samples, list) else asdict(samples),
            "size": size,
            "decoder": decoder,
            "clip": asdict(clip) if clip else None,
            "seconds": self.seconds,
        }
        return self._threads.submit(self._read, task)

    def _read(self, task: dict[str, Any]) -> Video:
        """Have a video read by this thread's process."""
        process: _Process | None = getattr(self._local, "process", None)
        if process is None or process.poll() is not None:
            self._local.process = process = self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            reply = json.loads(process.stdout.readline())
            if "error" in reply:
                raise (ClipError if reply["clip"] else VideoError)(reply["error"])
            pixels = self._allocate(tuple(reply["shape"]))
            if process.stdout.readinto(pixels.reshape(-1)) < pixels.size:  # type: ignore[attr-defined]
                raise EOFError
        except (BrokenPipeError, EOFError, json.JSONDecodeError) as error:
            raise self._death(process, task["path"]) from error
        fields = reply["video"]
        return Video(
            **{**fields, "size": tuple(fields["size"]), "span": tuple(fields["span"])},
            frames=pixels,
            indices=np.array(reply["indices"], np.int64),
            pts_seconds=np.array([np.nan if t is None else t for t in reply["pts_seconds"]], np.float64),
        )

    def _death(self, process: _Process, path: str) -> VideoError:
        """Remove a process that no longer answers; the error says why it died."""
        process.kill()
        code = process.wait()
        self._processes.discard(process)
        if code == -signal.SIGALRM:
            return VideoError(f"{path}: decoding took longer than {self.seconds:g} s and was ended")
        reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return VideoError(f"{path}: the decoder process died ({reason})")

    def _start(self) -> _Process:
        process = subprocess.Popen(
            # -P: a file called decord.py in the current folder must not be run
            [sys.executable, "-P", "-m", "sfllava.sampler.pool", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # only the parent handles an interrupt from the keyboard
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._processes.add(process)
        return process

    def close(self) -> None:
        """Cancel the videos that have not been started and end the workers."""
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
    """Run a worker: read one task per line from stdin; write a line of JSON, then raw pixels, to stdout."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decord prints to stdout; its messages must not mix with the pixels
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker outlives its parent
        if os.getppid() != parent:
            return
        with contextlib.suppress(OSError):
            # if a video exhausts the memory, the kernel kills this process, not the parent
            Path("/proc/self/oom_score_adj").write_text("1000")
    for line in sys.stdin.buffer:
        task = json.loads(line)
        with _time_limit(task["seconds"]):
            reply, pixels = _read_task(task)
        out.write(json.dumps(reply).encode() + b"\n")
        if pixels is not None:
            out.write(np.ascontiguousarray(pixels).data)
        out.flush()


def _read_task(task: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    """The reply to a task, and the frames that follow it."""
    size = tuple(task["size"]) if isinstance(task["size"], list) else task["size"]
    clip = Clip(**task["clip"]) if task["clip"] else None
    samples = task["samples"]
    frames = [_sample(each) for each in samples] if isinstance(samples, list) else _sample(samples)
    try:
        video = read_video(task["path"], frames, size=size, decoder=task["decoder"], clip=clip)
    except Exception as error:
        text = str(error) if isinstance(error, VideoError) else f"{task['path']}: {type(error).__name__}: {error}"
        return {"error": " ".join(text.split()), "clip": isinstance(error, ClipError)}, None
    reply = {
        "video": {k: getattr(video, k) for k in ("path", "fps", "size", "total", "decoder", "damage", "span")},
        "shape": video.frames.shape,
        "indices": video.indices.tolist(),
        "pts_seconds": [None if np.isnan(t) else float(t) for t in video.pts_seconds],
    }
    return reply, video.frames


def _sample(fields: dict[str, Any]) -> AnySample:
    return FrameIndices(tuple(fields["indices"])) if "indices" in fields else Sample(**fields)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, where the system can."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
