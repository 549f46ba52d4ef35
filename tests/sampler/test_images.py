"""Folders of frame images, and resizing."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sfllava.sampler import images
from sfllava.sampler.images import resize_frames
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import sample_indices
from sfllava.sampler.video import VideoError


def test_resize_is_pil_s(clip):
    plain, sized = read_video(clip, 5), read_video(clip, 5, size=(336, 336))
    wanted = [np.asarray(Image.fromarray(frame).resize((336, 336))) for frame in plain.frames]
    np.testing.assert_array_equal(sized.frames, wanted)
    assert sized.size == plain.size
    np.testing.assert_array_equal(resize_frames(plain.frames, (40, 30))[0].shape, (40, 30, 3))


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


def test_the_limit_on_images_kept_at_their_own_size(tmp_path, monkeypatch):
    for i in range(3):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(images, "_MAX_FOLDER_PIXELS", 600)
    assert read_video(tmp_path, 3).frames.shape == (3, 10, 20, 3)
    monkeypatch.setattr(images, "_MAX_FOLDER_PIXELS", 599)
    with pytest.raises(VideoError, match=r"0\.png: needed at most 599 pixels in all images together, got 3 of 20x10"):
        read_video(tmp_path, 3)
    assert read_video(tmp_path, 2).size == (10, 20)


def test_frames_of_the_wanted_size_are_not_touched():
    frames = np.zeros((2, 30, 40, 3), np.uint8)
    assert resize_frames(frames, (30, 40)) is frames
    assert resize_frames(frames, (40, 30)).shape == (2, 40, 30, 3)
