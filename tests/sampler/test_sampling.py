"""Which frames of a video are sampled."""

from __future__ import annotations

import numpy as np
import pytest

from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import sample_indices, union_indices
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


def test_a_video_without_frames_is_an_error():
    with pytest.raises(SfllavaError, match="needed a video of at least 1 frame, got 0"):
        sample_indices(0, 5)


def test_several_samples_are_read_together_each_frame_once(videos):
    assert union_indices(20, 4).tolist() == sample_indices(20, 4).tolist() == [2, 7, 12, 16]
    assert union_indices(20, [3, 4, 4]).tolist() == sorted({2, 7, 12, 16} | {3, 9, 16})
    video = read_video(videos / "a.mp4", [3, 4])
    for frames in (3, 4):
        found = video.positions(frames)
        assert video.indices[found].tolist() == sample_indices(20, frames).tolist()
        np.testing.assert_array_equal(video.frames[found], read_video(videos / "a.mp4", frames).frames)
    for frames in (2, 20):
        with pytest.raises(SfllavaError, match=rf"a\.mp4: was not read for a sample of {frames} frames"):
            video.positions(frames)


@pytest.mark.parametrize("frames", [[], [3, 0], [-1]])
def test_each_of_several_samples_needs_a_frame(frames, videos):
    with pytest.raises(SfllavaError, match="frames must be at least 1, got"):
        read_video(videos / "a.mp4", frames)
    assert read_video(videos / "a.mp4", [1]).indices.tolist() == [9]
