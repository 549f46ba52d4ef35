"""Which frames of a video are sampled."""

from __future__ import annotations

import numpy as np
import pytest

from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import Sample, clip_range, parse_rule, sample_indices, union_indices
from sfllava.settings import Setting
from sfllava.types import Clip, SfllavaError


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
    with pytest.raises(SfllavaError, match=f"frames must be a whole number of at least 1, got {frames}"):
        read_video(videos / "a.mp4", frames)


def test_a_video_without_frames_is_an_error():
    with pytest.raises(SfllavaError, match="needed a video of at least 1 frame, got 0"):
        sample_indices(0, 5)


def test_several_samples_are_read_together_each_frame_once(videos):
    assert union_indices(Sample(4), 0, 19).tolist() == sample_indices(20, 4).tolist() == [2, 7, 12, 16]
    assert union_indices([Sample(n) for n in (3, 4, 4)], 0, 19).tolist() == sorted({2, 7, 12, 16} | {3, 9, 16})
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
    with pytest.raises(SfllavaError, match="frames must be a whole number of at least 1, got"):
        read_video(videos / "a.mp4", frames)
    assert read_video(videos / "a.mp4", [1]).indices.tolist() == [9]


@pytest.mark.parametrize(
    ("rule", "total", "frames", "wanted"),
    [  # by hand
        ("lmms-eval", 10, 4, [0, 3, 6, 9]),
        ("lmms-eval", 11, 4, [0, 3, 6, 10]),  # 10/3 = 3.33, 6.67, rounded down
        ("lmms-eval", 2, 4, [0, 0, 0, 1]),  # a short video repeats frames
        ("vlmevalkit", 10, 4, [2, 4, 6, 8]),
        ("vlmevalkit", 3, 5, [0, 1, 1, 2, 2]),
        ("mvbench", 9, 4, [1, 3, 5, 7]),  # segments of 2
        ("mvbench", 10, 4, [1, 3, 5, 8]),  # segments of 2.25: starts 0 2 4 7, half a segment 1.125
    ],
)
def test_frame_rules_computed_by_hand(rule, total, frames, wanted):
    assert Sample(frames, rule).indices(total).tolist() == wanted
    assert Sample(frames, rule).count(total) == len(wanted)


@pytest.mark.parametrize("rule", ["published", "lmms-eval", "vlmevalkit", "mvbench", "fps:1"])
def test_every_rule_gives_frames_of_the_video_in_order(rule):
    for total in (1, 2, 5, 63, 64, 65, 900):
        for frames in (1, 8, 64):
            found = Sample(frames, rule).indices(total, 30.0)
            assert 1 <= len(found) <= frames and found.min() >= 0 and found.max() < total, (total, frames)
            assert (np.diff(found) >= 0).all()


def test_frames_per_second_up_to_a_maximum():
    assert Sample(64, "fps:1").indices(100, 29.97).tolist() == [0, 30, 60, 90]
    assert Sample(64, "fps:2").indices(100, 29.97).tolist() == [0, 15, 30, 45, 60, 75, 90]
    assert Sample(3, "fps:1").indices(100, 29.97).tolist() == [0, 49, 99]  # four are too many
    with pytest.raises(SfllavaError, match="has no frame rate, which the frame rule fps:1 needs"):
        Sample(64, "fps:1").indices(100)


def test_a_rule_in_a_setting_has_its_number_and_a_name():
    setting = Setting(8, "none", frame_rule="fps:1,max:64")
    assert (setting.frames, setting.frame_rule) == (64, "fps:1") and setting.name == "64frms-fps:1-none"
    assert Setting(8, "none").name == "8frms-none" and Setting(8, "none", frame_rule="mvbench").frames == 8
    assert parse_rule("lmms-eval") == ("lmms-eval", None)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "lmms_eval",
            "no frame rule is called 'lmms_eval' .did you mean 'lmms-eval'..; choose from published, lmms-eval, vlmevalkit, mvbench",
        ),
        ("fps:0", "no frame rule is called 'fps:0'"),
        ("fps:1,max:0", "needed fps:N,max:M with a whole number M of at least 1"),
        ("mvbench,max:8", "needed fps:N,max:M"),
    ],
)
def test_an_unknown_frame_rule_is_an_error(rule, message):
    with pytest.raises(SfllavaError, match=message):
        Setting(8, "none", frame_rule=rule)


def test_clips_become_frames_by_the_frame_rate():
    assert clip_range(100, 10.0, None) == clip_range(100, None, Clip(fps=3.0)) == (0, 99)
    assert clip_range(100, 10.0, Clip(2.0, 4.0)) == (20, 40)
    assert clip_range(100, 10.0, Clip(end=4.0)) == (0, 40)
    assert clip_range(100, 10.0, Clip(9.0, 30.0)) == (90, 99)  # an end after the video is its end
    assert clip_range(100, None, Clip(2.0, 4.0, fps=3.0)) == (6, 12)  # a folder of images
    with pytest.raises(SfllavaError, match="clip from 30 s to 31 s is outside the video, which has 10 s"):
        clip_range(100, 10.0, Clip(30.0, 31.0))
    with pytest.raises(SfllavaError, match="has no frame rate"):
        clip_range(100, None, Clip(2.0))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("rule", ["published", "lmms-eval", "fps:4"])
def test_the_frames_of_a_clip_are_inside_it(rule, decoder, videos):
    whole = read_video(videos / "a.mp4", Sample(20, "lmms-eval"))  # all 20 frames at 8 fps
    clip = Clip(0.5, 1.5)
    samples = [Sample(3, rule), Sample(5, rule)]
    video = read_video(videos / "a.mp4", samples, decoder=decoder, clip=clip)
    assert video.span == (4, 12) and video.total == 20
    assert video.pts_seconds.min() >= 0.5 and video.pts_seconds.max() <= 1.5
    np.testing.assert_array_equal(video.frames, whole.frames[video.indices])
    for sample in samples:
        wanted = 4 + sample.indices(9, 8.0)
        assert video.indices[video.positions(sample)].tolist() == wanted.tolist()


def test_a_clip_outside_a_video_is_an_error_that_names_the_file(videos):
    for decoder in ("auto", "decord", "pyav"):
        with pytest.raises(
            SfllavaError, match=r"a\.mp4: the clip from 9 s to 10 s is outside the video, which has 2.5 s"
        ):
            read_video(videos / "a.mp4", 4, decoder=decoder, clip=Clip(9.0, 10.0))
