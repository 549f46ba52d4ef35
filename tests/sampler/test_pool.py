"""Decoding in worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm
from PIL import Image
from small_runs import hanging_decord

from sfllava.sampler.pool import DecodePool
from sfllava.sampler.reading import read_video
from sfllava.sampler.video import VideoError


@pytest.fixture(autouse=True)
def _cold(monkeypatch):
    """Each process is started as a user's is."""
    monkeypatch.setenv(warm.COLD, "1")


def test_workers_read_the_same(clip, videos):
    with DecodePool(2) as pool:
        futures = [pool.submit(path, 9, (32, 48)) for path in (clip, videos / "a.mp4", videos / "b.mp4")]
        for path, future in zip((clip, videos / "a.mp4", videos / "b.mp4"), futures):
            there, here = future.result(), read_video(path, 9, size=(32, 48))
            np.testing.assert_array_equal(there.frames, here.frames)
            np.testing.assert_array_equal(there.indices, here.indices)
            np.testing.assert_allclose(there.pts_seconds, here.pts_seconds)
            assert (there.size, there.fps, there.total, there.decoder) == (
                here.size,
                here.fps,
                here.total,
                here.decoder,
            )


def test_a_hanging_decoder_costs_one_video(tmp_path, videos, monkeypatch):
    hanging_decord(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with DecodePool(1, seconds=2) as pool:
        hung = pool.submit(videos / "a.mp4", 5)
        fine = pool.submit(videos / "b.mp4", 5, None, "pyav")
        with pytest.raises(VideoError, match=r"a\.mp4: decoding took longer than 2 s and was ended"):
            hung.result(timeout=60)
        assert fine.result(timeout=60).frames.shape[0] == 5


def test_workers_run_nothing_of_the_current_folder(tmp_path, videos, monkeypatch):
    (tmp_path / "decord.py").write_text("import pathlib\npathlib.Path(__file__).with_name('RAN').touch()\n")
    monkeypatch.chdir(tmp_path)
    with DecodePool(1) as pool:
        assert pool.submit(videos / "a.mp4", 5).result().decoder == "decord"
    assert not (tmp_path / "RAN").exists()


def test_a_crashing_decoder_costs_one_video(tmp_path, videos, monkeypatch):
    (tmp_path / "decord.py").write_text("import os\ndef VideoReader(*a, **k):\n    os.abort()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with DecodePool(1) as pool:
        with pytest.raises(VideoError, match=r"a\.mp4: the decoder process died \(SIGABRT\)"):
            pool.submit(videos / "a.mp4", 5).result(timeout=60)
        assert pool.submit(videos / "b.mp4", 5, None, "pyav").result(timeout=60).total == 21


def test_no_worker_outlives_a_killed_parent(tmp_path, videos):
    hanging_decord(tmp_path)
    script = tmp_path / "parent.py"  # no main guard: workers must not run it again
    script.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from sfllava.sampler.pool import DecodePool\n"
        "pool = DecodePool(1, seconds=120)\n"
        f"future = pool.submit({str(videos / 'a.mp4')!r}, 5)\n"
        "import time\n"
        "while not pool._processes: time.sleep(0.01)\n"
        "time.sleep(2); print(next(iter(pool._processes)).pid, flush=True); future.result()\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":  # ended, not yet reaped
            return
        time.sleep(0.1)
    pytest.fail("the worker still runs")


def test_a_decoder_that_exits_costs_one_video(tmp_path, videos, monkeypatch):
    (tmp_path / "decord.py").write_text("import os\ndef VideoReader(*a, **k):\n    os._exit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with DecodePool(1) as pool, pytest.raises(VideoError, match=r"a\.mp4: the decoder process died \(exit status 3\)"):
        pool.submit(videos / "a.mp4", 5).result(timeout=60)


def test_a_folder_of_images_has_no_times_and_frames_land_where_the_caller_wants(tmp_path):
    for i in range(3):
        Image.new("RGB", (20, 10), (i, 2, 3)).save(tmp_path / f"{i}.png")
    memory = []

    def allocate(shape):
        memory.append(np.zeros(shape, np.uint8))
        return memory[-1]

    with DecodePool(1, allocate=allocate) as pool:
        video = pool.submit(tmp_path, [2, 3]).result(timeout=60)
    assert video.frames is memory[0] and video.frames[:, 0, 0].tolist() == [[0, 2, 3], [1, 2, 3]]
    assert np.isnan(video.pts_seconds).all() and video.fps is None and video.size == (10, 20)
