from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import CLIPS, moving_square
from PIL import Image
from small_runs import hanging_decord

from sfllava.sampler.pool import DecodePool
from sfllava.sampler.reading import read_video
from sfllava.sampler.images import resize_frames
from sfllava.sampler.sampling import sample_indices
from sfllava.sampler.video import VideoError
from sfllava.sampler.writing import write_video
from sfllava.types import SfllavaError


@pytest.mark.parametrize(
    ("total", "frames", "wanted"),
    [  # by hand: s = (total - 1) / n, rounded half to even, integer middles
        (6, 2, [1, 3]),  # s = 2.5: bounds 0 2 5
        (10, 3, [1, 4, 7]),  # s = 3: bounds 0 3 6 9
        (8, 2, [2, 5]),  # s = 3.5: bounds 0 4 7
        (1, 50, [0]),
        (3, 3, [0, 1, 1]),  # s = 2/3: bounds 0 1 1 2
        (4, 100, [0, 1, 2, 2]),  # n = 4, s = 0.75: bounds 0 1 2 2 3
        (100, 1, [49]),
    ],
)
def test_indices_by_hand(total, frames, wanted):
    assert sample_indices(total, frames).tolist() == wanted


def test_indices_follow_the_rule_for_many_lengths():
    for total in (*range(1, 120), 828, 5401):
        for frames in (1, 2, 7, 10, 50, 64):
            n = min(total, frames)
            step = (total - 1) / n
            middles = [(round(step * i) + round(step * (i + 1))) // 2 for i in range(n)]  # Python rounds half to even
            assert sample_indices(total, frames).tolist() == middles, (total, frames)


@pytest.mark.parametrize("frames", [0, -3])
def test_no_frames_is_an_error(frames, videos):
    with pytest.raises(SfllavaError, match=f"frames must be at least 1, got {frames}"):
        read_video(videos / "a.mp4", frames)


@pytest.mark.parametrize(
    ("name", "codec", "decoder"),
    [
        ("v.mp4", "libx264", "decord"),
        ("v.mkv", "libx264", "decord"),
        ("v.mov", "libx264", "decord"),
        ("v.m4v", "mpeg4", "decord"),
        ("v.avi", "mpeg4", "decord"),
        ("v.webm", "libvpx-vp9", "decord"),
        ("v.gif", "gif", "decord"),
        ("av1.mp4", "libsvtav1", "decord"),
    ],
)
def test_every_container_gives_the_right_frames(tmp_path, name, codec, decoder):
    source = moving_square(31)
    path = write_video(tmp_path / name, source, codec=codec)
    video = read_video(path, 7)
    assert (video.decoder, video.total, video.size) == (decoder, 31, (96, 128))
    assert video.frames.shape == (7, 96, 128, 3) and video.frames.dtype == np.uint8
    with av.open(str(path)) as container:  # all frames in order, the plain way
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(video.frames, [every[i] for i in video.indices])
    # the red background counts frames, as far as a lossy codec keeps it
    np.testing.assert_allclose(video.frames[:, 60:, :, 0].mean((1, 2)), 8 * video.indices, atol=12)


@pytest.mark.parametrize("name", CLIPS)
def test_decord_and_pyav_agree_on_real_clips(shared, name):
    path = shared / "clips" / f"{name}.mp4"
    one, other = read_video(path, 50), read_video(path, 50, decoder="pyav")
    assert (one.decoder, other.decoder) == ("decord", "pyav")
    assert one.total == other.total and one.size == other.size and one.fps == pytest.approx(other.fps)
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_allclose(one.pts_seconds, other.pts_seconds, atol=1e-5)
    assert (np.diff(one.pts_seconds) > 0).all()


def test_resize_is_pil_s(clip):
    plain, sized = read_video(clip, 5), read_video(clip, 5, size=(336, 336))
    wanted = [np.asarray(Image.fromarray(frame).resize((336, 336))) for frame in plain.frames]
    np.testing.assert_array_equal(sized.frames, wanted)
    assert sized.size == plain.size
    np.testing.assert_array_equal(resize_frames(plain.frames, (40, 30))[0].shape, (40, 30, 3))


def turned(path, quarter_turns_clockwise):
    """Write a display matrix into an mp4's track header, as a phone does."""
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns_clockwise]
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_rotation_metadata_is_honoured(tmp_path, turns, decoder):
    flat = write_video(tmp_path / "flat.mp4", moving_square(10))
    path = write_video(tmp_path / "turned.mp4", moving_square(10))
    turned(path, turns)
    upright = read_video(path, 3, decoder=decoder)
    wanted = np.rot90(read_video(flat, 3).frames, -turns, axes=(1, 2))
    np.testing.assert_array_equal(upright.frames, wanted)
    assert upright.size == wanted.shape[1:3]


def test_a_folder_of_images_is_a_video(tmp_path):
    for i in range(12):
        Image.new("RGB", (20, 10), (10 * i, 0, 0)).save(tmp_path / f"{i:03}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    video = read_video(tmp_path, 4)
    assert video.total == 12 and video.fps is None and np.isnan(video.pts_seconds).all()
    assert video.frames[:, 0, 0, 0].tolist() == [10 * i for i in sample_indices(12, 4)]
    Image.new("RGB", (30, 10)).save(tmp_path / "001.png")
    with pytest.raises(VideoError, match=r"001\.png: needed 20x10 pixels as the first image, got 30x10"):
        read_video(tmp_path, 12)
    assert read_video(tmp_path, 12, size=(8, 8)).frames.shape == (12, 8, 8, 3)
    (tmp_path / "002.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match=r"002\.png: not a readable image"):
        read_video(tmp_path, 12, size=(8, 8))


def test_a_small_image_file_that_declares_a_huge_picture_takes_no_memory(tmp_path):
    Image.new("1", (13_000, 13_000)).save(tmp_path / "0.png")
    assert (tmp_path / "0.png").stat().st_size < 100_000
    code = (
        "import sys, resource\nfrom sfllava.sampler.reading import read_video\nfrom sfllava.sampler.video import VideoError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_video(sys.argv[1], 1, size=(8, 8))\n"
        "except VideoError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    said, kilobytes = done.stdout.splitlines()
    assert said == f"{tmp_path / '0.png'}: needed an image of at most 67,108,864 pixels, got 13000x13000"
    assert int(kilobytes) < 100_000 and not done.stderr


def test_large_images_are_not_all_held_at_their_own_size(tmp_path):
    Image.new("1", (8192, 8192)).save(tmp_path / "00.png")
    for i in range(1, 17):
        os.link(tmp_path / "00.png", tmp_path / f"{i:02}.png")
    with pytest.raises(VideoError, match=r"00\.png: needed at most 1,073,741,824 pixels .*, got 17 of 8192x8192"):
        read_video(tmp_path, 17)
    assert read_video(tmp_path, 1, size=(8, 8)).frames.shape == (1, 8, 8, 3)


def test_one_frame(tmp_path):
    path = write_video(tmp_path / "one.mp4", moving_square(1))
    assert read_video(path, 50).indices.tolist() == [0]


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("missing.mp4", lambda path: None, "no such video"),
        ("empty.mp4", lambda path: path.touch(), r"the file is empty \(0 bytes\)"),
        ("text.mp4", lambda path: path.write_text("hello " * 1000), "not a readable video"),
        ("audio.mp4", audio_only, "needed a video stream, got audio streams only"),
        ("folder.mp4", lambda path: path.mkdir(), "needed a folder of frame images"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(VideoError, match=rf"{name}: {message}"):
        read_video(tmp_path / name, 5)


def test_truncated_files(clip, tmp_path):
    data = clip.read_bytes()  # its index stands in front
    half, head = tmp_path / "half.mp4", tmp_path / "head.mp4"
    half.write_bytes(data[: len(data) // 2])
    head.write_bytes(data[:3000])
    video, whole = read_video(half, 50), read_video(clip, 376)
    assert video.decoder == "pyav" and 100 < video.total < 376
    assert video.damage == f"only {video.total} of 376 declared frames can be decoded"
    np.testing.assert_array_equal(video.frames, whole.frames[np.searchsorted(whole.indices, video.indices)])
    with pytest.raises(VideoError, match=r"head\.mp4: not a readable video"):
        read_video(head, 50)


def test_flipped_bytes_are_survived(clip, tmp_path):
    data = np.frombuffer(clip.read_bytes(), np.uint8).copy()
    data[np.random.default_rng(0).integers(6000, len(data), 20)] ^= 255
    (tmp_path / "flipped.mp4").write_bytes(data.tobytes())
    spoilt, whole = read_video(tmp_path / "flipped.mp4", 20), read_video(clip, 376)
    same_time = np.abs(whole.pts_seconds[:, None] - spoilt.pts_seconds).argmin(0)
    off = np.abs(spoilt.frames.astype(int) - whole.frames[same_time]).mean((1, 2, 3))
    assert np.median(off) < 10 and len(set(same_time)) == 20, "other frames than asked for"


def test_a_tag_that_is_not_utf8(tmp_path):
    path = write_video(tmp_path / "old.avi", moving_square(10), codec="mpeg4")
    data = path.read_bytes()
    at = data.index(b"Lavf")  # the software's name, as an old encoder would have written it
    path.write_bytes(data[:at] + b"L\xe9vf" + data[at + 4 :])
    assert read_video(path, 4).total == 10
    assert read_video(path, 4, decoder="pyav").total == 10


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
