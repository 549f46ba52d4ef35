"""Reading video files: containers, codecs, rotation, damage, and what is no video."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import CLIPS, moving_square

from sfllava.sampler.container import probe_container
from sfllava.sampler.reading import read_video
from sfllava.sampler.video import VideoError
from sfllava.sampler.writing import write_video

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from corpus import make_items


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


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """odd(name) -> a file of the corpus of odd and damaged videos: 16 frames, 8 a second, 48 x 64 pixels."""
    folder = tmp_path_factory.mktemp("odd")

    def get(name: str) -> Path:
        if not (folder / name).exists():
            assert make_items(folder, [name])
        return folder / name

    return get


@pytest.mark.parametrize(
    ("name", "total", "damage"),
    [
        ("cut/0.5.mkv", 6, "it ends after 0.8 of 2.0 s"),
        ("cut/0.8.webm", 12, "it ends after 1.5 of 2.0 s"),
        ("cut/0.9.mkv", 14, "it ends after 1.8 of 2.0 s"),
        ("cut/0.5.avi", 3, "only 3 of 16 declared frames can be decoded"),
        ("flipped/end-3.fast.mp4", 15, "only 15 of 16 declared frames can be decoded; 2 of its frames have gaps"),
        ("flipped/end-0.mkv", 14, "1 of its packets cannot be decoded"),
        ("codecs/libx264.avi", 16, ""),
        ("rates/late.mp4", 16, ""),
        ("cut/0.5.gif", 8, ""),
        # of an edit list: what it hides is no damage
        ("edited/4-0.mp4", 12, ""),
        ("edited/0-4.mov", 12, ""),
        ("edited/5-3.mp4", 8, ""),
    ],
)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_what_is_left_of_a_video_and_what_is_wrong_with_it(odd, name, total, damage, decoder, caplog):
    video = read_video(odd(name), 50, decoder=decoder)
    assert (video.total, video.damage) == (total, damage)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ([f"{odd(name)}: damaged: {damage}"] if damage else [])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut/0.5.fast.mp4", "no frame can be decoded of the 16 declared"),
        ("huge/screen.gif", "needed frames of at most 67,108,864 pixels, got 15000x15000"),
        ("flipped/head-2.mkv", "no decoder for its video codec"),
        ("special/fifo.mp4", "needed a file, got a pipe, socket or device"),
    ],
)
def test_what_cannot_be_read_says_why(odd, name, message):
    with pytest.raises(VideoError, match=f"{name}: {message}"):
        read_video(odd(name), 50)


def test_avi_has_no_times_of_its_own(odd):
    video = read_video(odd("codecs/libx264.avi"), 50)
    np.testing.assert_allclose(video.pts_seconds, video.indices / 8)


def test_the_decoder_that_was_asked_for_decodes(odd, caplog):
    cut = odd("edited/4-0.mp4")
    with pytest.raises(VideoError, match=r"4-0\.mp4: decord cannot read it: some of its frames are hidden"):
        read_video(cut, 5, decoder="decord")
    with caplog.at_level("INFO"):
        assert read_video(cut, 5).decoder == "pyav"
    assert "decord cannot read it (some of its frames are hidden by an edit list), trying PyAV" in caplog.text
    assert read_video(odd("order/all-key.mp4"), 5, decoder="decord").decoder == "decord"
    assert read_video(odd("order/all-key.mp4"), 5, decoder="pyav").decoder == "pyav"


def test_an_address_is_no_file(tmp_path):
    with pytest.raises(VideoError, match=r"https://host/a\.mp4: needed a file on this machine, got a URL"):
        read_video("https://host/a.mp4", 5)


def test_a_long_matroska_file_declares_its_end_in_hours(tmp_path):
    path = write_video(tmp_path / "long.mkv", moving_square(16))
    path.write_bytes(path.read_bytes().replace(b"00:00:02.000000000", b"01:02:03.500000000"))
    assert probe_container(path).end_seconds == 3723.5
    assert read_video(path, 4).damage == "it ends after 2.0 of 3723.5 s"


def test_fifty_frames_are_read_where_nothing_else_is_asked_for(clip):
    assert read_video(clip, size=(24, 32)).frames.shape == (50, 24, 32, 3)
