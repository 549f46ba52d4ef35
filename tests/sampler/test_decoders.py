"""What decord and PyAV do with the frames that they decode: checks of decord's, batches, and the memory they take."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sfllava.sampler import container, decord, pyav
from sfllava.sampler.container import ContainerInfo, first_line, probe_container
from sfllava.sampler.decord import read_with_decord
from sfllava.sampler.images import resize_frames
from sfllava.sampler.pyav import read_with_pyav
from sfllava.sampler.sampling import Sample, Selection
from sfllava.sampler.video import VideoError

FRAME_BYTES = 96 * 128 * 3
INFO = ContainerInfo(frames=20, fps=8.0, end_seconds=2.5, pixels=96 * 128)


@pytest.fixture
def path(videos):
    return videos / "a.mp4"


def test_what_a_file_declares(path):
    assert probe_container(path) == INFO


@pytest.mark.parametrize(
    ("fps", "end", "earliest"), [(8.0, 2.5, 2.3125), (30.0, 2.5, 2.4), (None, 2.5, 1.0), (8.0, math.nan, math.nan)]
)
def test_the_earliest_end_of_an_intact_file(fps, end, earliest):
    np.testing.assert_allclose(ContainerInfo(20, fps, end, 1).earliest_end, earliest)


def test_an_error_is_one_line_of_limited_length():
    assert first_line(ValueError("\n  first \nsecond")) == "first"
    assert first_line(ValueError("x" * 300)) == "x" * 200
    assert first_line(ValueError()) == "ValueError"


def test_frames_of_the_largest_size_are_taken(path, monkeypatch):
    monkeypatch.setattr(container, "MAX_FRAME_PIXELS", 96 * 128)
    assert probe_container(path) == INFO
    monkeypatch.setattr(container, "MAX_FRAME_PIXELS", 96 * 128 - 1)
    with pytest.raises(VideoError, match=r"a\.mp4: needed frames of at most 12,287 pixels, got 128x96"):
        probe_container(path)


@pytest.fixture
def resized(monkeypatch):
    """How many frames were resized at a time."""
    counts: list[int] = []

    def spy(frames, size):
        counts.append(len(frames))
        return resize_frames(frames, size)

    for module in (decord, pyav):
        monkeypatch.setattr(module, "resize_frames", spy)
    return counts


@pytest.mark.parametrize(
    ("read", "limit", "batches"),
    [
        (read_with_decord, 4 * FRAME_BYTES, [4, 4, 2]),
        (read_with_decord, 5 * FRAME_BYTES - 1, [4, 4, 2]),
        (read_with_decord, 10 * FRAME_BYTES, [10]),
        (read_with_decord, FRAME_BYTES - 1, [1] * 10),  # one frame must fit
        (read_with_pyav, 4 * FRAME_BYTES, [5, 5]),  # resized when they exceed the limit
        (read_with_pyav, 4 * FRAME_BYTES - 1, [4, 4, 2]),
        (read_with_pyav, 1 << 28, [10]),
        (read_with_pyav, 0, [1] * 10),
    ],
)
def test_frames_are_resized_in_batches_of_limited_memory(path, monkeypatch, resized, read, limit, batches):
    whole = read(path, INFO, Selection(Sample(10)), (24, 32))
    resized.clear()
    for module in (decord, pyav):
        monkeypatch.setattr(module, "RESIZE_BYTES", limit)
    video = read(path, INFO, Selection(Sample(10)), (24, 32))
    assert resized == batches
    np.testing.assert_array_equal(video.frames, whole.frames)
    assert video.size == (96, 128) and len(set(video.indices)) == 10
    resized.clear()
    plain = read(path, INFO, Selection(Sample(10)), None)
    assert not resized
    np.testing.assert_array_equal(resize_frames(plain.frames, (24, 32)), whole.frames)


def test_repeated_indices_repeat_frames(tmp_path):
    from conftest import moving_square

    from sfllava.sampler.writing import write_video

    short = write_video(tmp_path / "short.mp4", moving_square(3))
    for read in (read_with_decord, read_with_pyav):
        video = read(short, probe_container(short), Selection(Sample(3)), None)
        assert video.indices.tolist() == [0, 1, 1]
        np.testing.assert_array_equal(video.frames[1], video.frames[2])
        assert video.pts_seconds.tolist() == [0, 1 / 8, 1 / 8]


class FakeReader:
    """A decord that says what it is told to: frames that are all zero, shown at `times` (T 2)."""

    times: np.ndarray

    def __init__(self, path, num_threads):
        pass

    def __len__(self):
        return len(self.times)

    def get_frame_timestamp(self, indices):
        return self.times[indices].astype(np.float32)

    def get_batch(self, indices):
        return SimpleNamespace(asnumpy=lambda: np.zeros((len(indices), 96, 128, 3), np.uint8))

    def get_avg_fps(self):
        return 8


def shown(*changes: tuple[int, int, float]) -> np.ndarray:
    """The times of 20 frames, 8 a second; with changes of (frame, start or end, seconds)."""
    times = np.stack([np.arange(20) / 8, np.arange(1, 21) / 8], 1)
    for frame, which, seconds in changes:
        times[frame, which] = seconds
    return times


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (shown(), ""),
        (shown()[:19], "only 19 of 20 declared frames"),
        (np.concatenate([shown(), [[2.4, 2.5]]]), ""),  # more than declared
        (shown((0, 0, -0.125)), "some of its frames are hidden by an edit list"),
        (shown((0, 0, -0.001)), "some of its frames are hidden by an edit list"),
        (shown((19, 0, 2.4995)), "some of its frames are hidden by an edit list"),
        (shown((19, 0, 2.498)), ""),
        (shown((7, 0, 3.0)), "its times are not those of its frames"),
        (shown((7, 0, 0.75)), ""),  # equal to the one before
        (shown((19, 1, 2.3)), "its times are not those of its frames"),
        (shown((19, 1, 2.32)), ""),
    ],
)
def test_frames_that_a_player_would_not_show_are_not_taken_from_decord(path, monkeypatch, times, message):
    monkeypatch.setattr(FakeReader, "times", times, raising=False)
    monkeypatch.setitem(sys.modules, "decord", SimpleNamespace(VideoReader=FakeReader))
    if message:
        with pytest.raises(VideoError, match=message):
            read_with_decord(path, INFO, Selection(Sample(20)), None)
    else:
        video = read_with_decord(path, INFO, Selection(Sample(20)), None)
        np.testing.assert_allclose(video.pts_seconds, times[video.indices, 0], rtol=1e-6)
        assert (video.total, video.fps, video.decoder) == (len(times), 8.0, "decord")


def test_a_count_of_frames_that_no_file_has_is_not_given_to_decord(path):
    size = path.stat().st_size
    with pytest.raises(VideoError, match=f"{size + 1} declared frames are more than it has bytes"):
        read_with_decord(path, ContainerInfo(size + 1, 8.0, 2.5, 1), Selection(Sample(5)), None)
    with pytest.raises(VideoError, match=f"only 20 of {size} declared frames"):
        read_with_decord(path, ContainerInfo(size, 8.0, 2.5, 1), Selection(Sample(5)), None)


def test_frames_that_are_lost_between_counting_and_reading_are_an_error(path, monkeypatch):
    whole = pyav._read_frames(path, {2, 7, 12, 16}, None)
    pixels = {i: whole[0][i] for i in (2, 7, 12)}
    monkeypatch.setattr(pyav, "_read_frames", lambda *_: (pixels, *whole[1:]))
    with pytest.raises(VideoError, match=r"a\.mp4: 20 frames were counted, then only 3 of 4 could be read"):
        read_with_pyav(path, INFO, Selection(Sample(4)), None)
