from __future__ import annotations

import numpy as np
import pytest

from sfllava.aggregators.slowfast import SlowFast, slow_indices
from sfllava.attribution.attribution import EXPLANATION, attribute, attribute_all, words_of
from sfllava.attribution.leave_out import leave_out, leave_out_all, removable_parts
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.models import replay
from sfllava.models.load import load_model
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

SMALL = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2"


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def video(videos):
    return read_video(videos / "a.mp4", 6, size=(112, 112))


def test_attention_is_the_plain_attention_on_the_frames(model, video):
    setting, question = Setting(6, SMALL), Question("Which colour flashed?")
    attribution = attribute(model, video, setting, question)
    grid = model.encode(video.frames)
    tokens = setting.tokens(grid)
    answer = model.answer(tokens, [question])[0]
    assert attribution.text == answer.text and attribution.token_ids == answer.token_ids
    rows = replay.attention_weights(model, tokens, question, answer.token_ids)
    assert " ".join(attribution.words) == answer.text
    totals = attribution.totals(0)
    _, owner = words_of(model, answer.token_ids)
    first = rows[[i for i, word in enumerate(owner) if word == 0]].mean(0)
    assert sum(part.sum() for part in totals.values()) == pytest.approx(float(first.sum()), rel=1e-5)
    # the Slow tokens of the second Slow frame, 4x4 cells of 2x2 patches
    assert totals["slow"][slow_indices(6, 2)[1]] == pytest.approx(float(first[16:32].sum()), rel=1e-5)
    assert totals["fast"][3] == pytest.approx(float(first[32 + 12 : 32 + 16].sum()), rel=1e-5)
    cells = attribution.heat("slow", 0)[0]
    np.testing.assert_allclose(cells[::2, ::2], cells[1::2, 1::2])
    assert cells[2, 4] == pytest.approx(float(first[1 * 4 + 2]) / 4, rel=1e-5)
    with pytest.raises(SfllavaError, match="no part of the visual tokens is called 'quick'; choose from slow, fast"):
        attribution.heat("quick")


def test_words_keep_every_token(model):
    # its vocabulary has places as one token
    ids = model.info.tokenizer.encode("a red square top left")
    words, owner = words_of(model, ids)
    assert words == ("a", "red", "square", "top left") and len(owner) == len(ids) and owner == sorted(owner)


def test_words_of_bytes_and_pieces(models):
    model = models()
    ids = model.info.tokenizer.encode("the barrels é of")
    words, owner = words_of(model, ids)
    assert " ".join(words) == model.info.tokenizer.decode(ids) and owner == sorted(owner) and len(owner) == len(ids)


def test_leaving_out_is_a_plain_recomputation(model, tmp_path):
    write_shapesqa(tmp_path, videos=1)
    video = read_video(tmp_path / "videos" / "test_0_0000.mp4", 6, size=(112, 112))
    setting, question = Setting(6, SMALL), Question("What colour is the small square?")
    grid = model.encode(video.frames)
    tokens, prefix = setting.tokens(grid), model.new_prefixes(1)[0]
    attribution = attribute(model, video, setting, question, grid=grid, prefix=prefix)
    assert attribution.log_likelihood == pytest.approx(
        float(replay.log_likelihoods(model, tokens, question, attribution.token_ids).sum()), abs=1e-4
    )
    effects = dict(leave_out(model, attribution, grid, prefix=prefix))
    assert set(effects) == {"slow", "fast", *(f"frame {i}" for i in range(6))} and effects == attribution.left_out
    slow = slow_indices(6, 2)
    for i in range(6):  # by hand: which tokens of 2 x 16 Slow and 6 x 4 Fast ones a frame has
        gone = set(range(32 + 4 * i, 36 + 4 * i))
        gone |= {n for k, at in enumerate(slow) if at == i for n in range(16 * k, 16 * k + 16)}
        rest = tokens[[n for n in range(len(tokens)) if n not in gone]]
        plain = float(replay.log_likelihoods(model, rest, question, attribution.token_ids).sum())
        assert effects[f"frame {i}"] == pytest.approx(plain - attribution.log_likelihood, abs=1e-4)
    alone = float(replay.log_likelihoods(model, SlowFast(0, fast=(2, 2))(grid), question, attribution.token_ids).sum())
    assert effects["slow"] == pytest.approx(alone - attribution.log_likelihood, abs=1e-4)
    assert max(map(abs, effects.values())) > 1e-3, "leaving out changes something"


def test_several_answers_together_match_each_answer_alone(model, video):
    setting, grid = Setting(6, SMALL).for_model(model.info), model.encode(video.frames)
    questions = [Question("Which colour flashed?"), Question("What colour is the small square?")]
    replies = [(a.question, a.token_ids) for a in model.answer(model.tokens(setting, grid), questions)]
    together = attribute_all(model, video, setting, replies, grid)
    left = dict(leave_out_all(model, together, grid, ["frame 4", "frame 1"]))
    for i, (question, ids) in enumerate(replies):
        alone = attribute(model, video, setting, question, ids, grid=grid)
        np.testing.assert_allclose(together[i].attention, alone.attention, atol=1e-6)
        assert (together[i].text, together[i].words) == (alone.text, alone.words)
        for part, change in leave_out(model, alone, grid, ["frame 4", "frame 1"]):
            assert left[part][i] == together[i].left_out[part] == pytest.approx(change, abs=1e-4)
    assert together[0].text != together[1].text


def test_leaving_out_stops_and_refuses(model, video):
    grid = model.encode(video.frames)
    attribution = attribute(model, video, Setting(6, SMALL), "Which colour flashed?", grid=grid)
    with pytest.raises(SfllavaError, match="'frame 9' cannot be left out; what can: slow, fast, frame 5"):
        list(leave_out(model, attribution, grid, ["frame 9"]))
    left = iter([True, True, False])
    assert len(list(leave_out(model, attribution, grid, going=lambda: next(left)))) == 2
    merged = attribute(model, video, Setting(6, "merged-80"), "Which colour flashed?", grid=grid)
    assert merged.heat("merged").shape == (6, 8, 8) and removable_parts(merged) == {}, "runs mix frames"
    tiled = attribute(model, video, Setting(6, "image_grid-1x2"), "Which colour flashed?")
    assert np.flatnonzero(tiled.totals()["whole"]).tolist() == [1, 4], "two of six frames are in the image"
    assert {"frame 4", "frame 1"} == set(removable_parts(tiled))
    mixed = attribute(model, video, Setting(6, "temporal_global_pool"), "Which colour flashed?", grid=grid)
    assert removable_parts(mixed) == {}, "its tokens mix all frames"
    with pytest.raises(SfllavaError, match="nothing here"):
        list(leave_out(model, mixed, grid, ["frame 0"]))


def test_the_help_says_what_attention_is_not():
    assert "not which ones made the answer" in EXPLANATION and "log-likelihood" in EXPLANATION
