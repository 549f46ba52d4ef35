from __future__ import annotations

import numpy as np
import pytest
import torch

from sfllava.explorer import feature_cache as features
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.sampler.reading import read_video
from sfllava.sampler.video import VideoError
from sfllava.sampler.writing import write_video
from sfllava.settings import Setting

from conftest import FirstFrames, moving_square  # isort: skip

FINE = "slowfast-slow_3frms_spatial_1d_max_pool-fast_2x2"
COARSE = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_4x4"


@pytest.fixture
def counted(models, monkeypatch):
    """Features that count: frames that went through the vision tower, and videos that were decoded."""
    model = models()
    work = {"encoded": 0, "decoded": 0}
    encode, pool = model.encode, features.DecodePool

    def encode_counted(frames, *args):
        work["encoded"] += len(frames)
        return encode(frames, *args)

    def pool_counted(*args):
        work["decoded"] += 1
        return pool(*args)

    monkeypatch.setattr(model, "encode", encode_counted)
    monkeypatch.setattr(features, "DecodePool", pool_counted)
    return FeatureCache(model), work


def test_a_pooling_changes_without_decoding_or_encoding(counted, videos):
    known, work = counted
    first = known.sample(videos / "a.mp4", Setting(8, FINE))
    assert (first.decoded, first.encoded) == (8, 8) and work == {"encoded": 8, "decoded": 1}
    again = known.sample(videos / "a.mp4", Setting(8, COARSE))
    assert (again.decoded, again.encoded) == (0, 0) and work == {"encoded": 8, "decoded": 1}
    assert torch.equal(first.grid, again.grid) and set(again.seconds) == {"decode", "encode"}


@pytest.mark.parametrize("frames", [4, 5, 9, 16])
def test_other_frames_encode_only_what_is_new(counted, videos, frames):
    known, work = counted
    path = videos / "a.mp4"
    had = set(known.sample(path, Setting(8, FINE)).video.indices.tolist())
    seen = known.sample(path, Setting(frames, FINE))
    plain = read_video(path, frames, size=(known.model.info.image_size,) * 2)
    new = set(plain.indices.tolist()) - had
    assert seen.encoded == len(new) and work["encoded"] == 8 + len(new)
    assert np.array_equal(seen.video.frames, plain.frames) and np.array_equal(seen.video.indices, plain.indices)
    assert np.array_equal(seen.video.pts_seconds, plain.pts_seconds) and seen.video.total == plain.total
    torch.testing.assert_close(seen.grid, known.model.encode(plain.frames), atol=1e-5, rtol=1e-5)
    back = known.sample(path, Setting(8, FINE))
    assert (back.decoded, back.encoded) == (0, 0)


def test_the_oldest_videos_go_first(counted, videos):
    known, work = counted
    one = known.sample(videos / "a.mp4", Setting(4, FINE))
    known.limit = int(known.size * 2.5)
    for name in ("b", "a", "c"):
        known.sample(videos / f"{name}.mp4", Setting(4, FINE))
    assert known.size <= known.limit and work["encoded"] == 12
    assert torch.equal(known.sample(videos / "a.mp4", Setting(4, FINE)).grid, one.grid) and work["encoded"] == 12
    known.sample(videos / "b.mp4", Setting(4, FINE))
    assert work["encoded"] == 16, "b was used longest ago"


def test_one_large_video_keeps_its_last_sample(counted, videos):
    known, _ = counted
    known.limit = 1
    known.sample(videos / "a.mp4", Setting(8, FINE))
    small = known.sample(videos / "a.mp4", Setting(3, FINE))
    size = sum(x.nbytes for x in small.video.frames) + small.grid.numel() * small.grid.element_size()
    assert known.size == size
    assert known.sample(videos / "a.mp4", Setting(3, COARSE)).encoded == 0


def test_tiled_images_are_kept_by_name(counted, videos):
    known, _ = counted
    assert known.sample(videos / "a.mp4", Setting(6, "image_grid-2x3")).encoded == 1
    assert known.sample(videos / "a.mp4", Setting(6, "image_grid-2x3")).encoded == 0
    assert known.sample(videos / "a.mp4", Setting(6, "image_grid-1x3")).encoded == 1
    assert known.sample(videos / "a.mp4", Setting(6, FINE)).encoded == 6


def test_tiled_images_of_methods_of_one_name_are_told_apart(counted, videos):
    known, work = counted
    one, three = FirstFrames([1]), FirstFrames([3])
    grids = [known.sample(videos / "a.mp4", Setting(6, method)).grid for method in (one, three, one)]
    assert [len(grid) for grid in grids] == [1, 3, 1] and work["encoded"] == 4


def test_a_replaced_file_is_another_video(counted, tmp_path):
    known, _ = counted
    path = write_video(tmp_path / "x.mp4", moving_square(10))
    before = known.sample(path, Setting(4, FINE)).video.frames
    write_video(path, moving_square(12)[::-1])
    assert not np.array_equal(known.sample(path, Setting(4, FINE)).video.frames, before)
    path.unlink()
    with pytest.raises(VideoError, match="no such video"):
        known.sample(path, Setting(4, FINE))


def test_a_folder_of_images_has_no_clock(counted, tmp_path):
    from PIL import Image

    for i, frame in enumerate(moving_square(5)):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    known, _ = counted
    assert (
        np.isnan(known.video(tmp_path, 3).pts_seconds).all() and known.sample(tmp_path, Setting(3, FINE)).decoded == 0
    )
