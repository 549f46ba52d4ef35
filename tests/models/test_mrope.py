"""Positions, DeepStack features and text of the visual part of a prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backbone_models import QUESTIONS, SLOWFAST, sampled, visual_part

from sfllava import Setting, load_model
from sfllava.models.mrope import frame_times


def test_tokens_of_qwen_are_placed_by_time_row_and_column(backbones, shared):
    model = backbones("qwen2_5_vl")
    video = sampled(shared, 0, 6)
    tokens = visual_part(model, video, "slowfast-slow_0frms_concat-fast_2x3")
    visual = tokens.positions[tokens.visual].reshape(6, 2, 3, 3)
    start = int(tokens.positions[0, 0]) + 1
    times = np.floor((video.pts_seconds - video.pts_seconds[0]) * 2 + 1e-6)
    assert (visual[:, 0, 0, 0] - start).tolist() == times.tolist()
    assert (visual[0, :, 0, 1] - start).tolist() == [2, 8]  # rows 0-5 and 6-11
    assert (visual[0, 0, :, 2] - start).tolist() == [1, 5, 9]  # columns 0-3, 4-7 and 8-11
    assert tokens.end == int(tokens.positions.max()) + 1


def test_consecutive_positions_are_those_of_text(backbone_folders, shared):
    model = load_model(backbone_folders("qwen2_5_vl"), positions="consecutive")
    tokens = visual_part(model, sampled(shared, 0, 6), SLOWFAST)
    assert tokens.positions.T.tolist() == [list(range(len(tokens)))] * 3 and tokens.end == len(tokens)
    assert model.info.options == {"positions": "consecutive"}


@pytest.mark.parametrize("backbone", ["qwen2_5_vl", "qwen3_vl"])
def test_timestamps_come_before_each_frame(backbone_folders, shared, backbone):
    model = load_model(backbone_folders(backbone), timestamps=True)
    video = sampled(shared, 0, 4)
    tokens = visual_part(model, video, "slowfast-slow_0frms_concat-fast_2x2")
    times = "".join(f"<{seconds:.1f} seconds>" for seconds in video.pts_seconds)
    embedded = model.language_model.embed_ids(torch.arange(model.info.tokenizer.vocabulary))
    text = tokens.embeddings[~tokens.visual]
    ids = [int((embedded - row).abs().sum(1).argmin()) for row in text]
    assert model.info.tokenizer.decode(ids).replace(" ", "") == times.replace(" ", "")
    assert tokens.count == 16
    answers = model.answer(tokens, QUESTIONS, max_new_tokens=8)
    alone = model.answer(tokens, QUESTIONS, max_new_tokens=8, share_prefix=False)
    assert [a.token_ids for a in answers] == [a.token_ids for a in alone]
    assert answers[0].visual_tokens == 16


def test_frames_without_times_are_one_second_apart(backbones, shared):
    model, video = backbones("qwen2_5_vl"), sampled(shared, 0, 7)
    for name in (SLOWFAST, "native", "thumbnail-2x3-sampled_200", "image_grid-2x3"):
        setting = Setting(7, name).for_model(model.info)
        grid = model.encode(setting.images(video.frames))
        unknown, counted = (model.tokens(setting, grid, seconds) for seconds in (np.full(7, np.nan), np.arange(7.0)))
        assert torch.equal(unknown.positions, counted.positions)
    # a single unknown time lies between its neighbours
    some = np.array([0, 2, np.nan, 6, 8, 10, 12.0])
    assert frame_times(some, 7).tolist() == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(Exception, match="needed the times of 7 frames, got 3"):
        model.tokens(Setting(7, SLOWFAST), model.encode(video.frames), np.arange(3.0))


@pytest.mark.parametrize("backbone", ["qwen2_5_vl", "qwen3_vl"])
def test_key_frames_have_their_own_times_in_half_precision(backbone_folders, shared, backbone):
    model, video = load_model(backbone_folders(backbone), dtype="bfloat16"), sampled(shared, 0, 24)
    setting = Setting(24, "keyframes-5frms_concat")
    grid = model.encode(video.frames)
    tokens = model.tokens(setting, grid, video.pts_seconds)
    patches = grid[..., : model.language_model.width].flatten(1, 2)
    first = tokens.embeddings[tokens.visual][::144]  # the first patch of each key frame
    frames = [int((patches[:, 0] == row).all(1).nonzero()[0]) for row in first]
    times = np.floor((video.pts_seconds[frames] - video.pts_seconds[0]) * 2 + 1e-6)
    assert (tokens.positions[tokens.visual][::144, 0] - tokens.positions[0, 0] - 1).tolist() == times.tolist()


@pytest.mark.parametrize("backbone", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("timestamps", [False, True])
def test_the_rows_of_a_prompt_are_counted_before_anything_is_encoded(backbone_folders, shared, backbone, timestamps):
    model, video = load_model(backbone_folders(backbone), timestamps=timestamps), sampled(shared, 0, 7)
    for name in (SLOWFAST, "native", "merged-800"):
        if timestamps and name == "merged-800":
            continue
        tokens, setting = visual_part(model, video, name), Setting(7, name)
        text = len(tokens) - tokens.count
        bound = model.info.prompt_rows(setting) - tokens.count
        assert text <= bound <= 2 * text + 40
        assert bound == 0 or backbone != "llava_onevision"
