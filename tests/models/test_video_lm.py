from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from conftest import CLIPS
from fault_table import record
from video_questions import QUESTIONS, token_ids

from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import Pool
from sfllava.aggregators.slowfast import SlowFast
from sfllava.models.base import ContextError
from sfllava.models.load import load_model
from sfllava.prompts import LETTERS, Prompt
from sfllava.sampler.reading import read_video
from sfllava.types import Question, SfllavaError


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_frames_of_another_kind_are_refused(models, frames):
    with pytest.raises(SfllavaError, match=r"needed uint8 frames of shape \(T H W 3\)"):
        models().encode(frames)


@pytest.mark.parametrize("name", CLIPS)
def test_each_clip_gets_its_own_answers(models, shared, name, frames):
    model = models()
    tokens = SlowFast()(model.encode(read_video(shared / "clips" / f"{name}.mp4", 50).frames))
    generated = token_ids(model.answer(tokens, QUESTIONS, max_new_tokens=16))
    assert generated == token_ids(model.answer(tokens, QUESTIONS, max_new_tokens=16, share_prefix=False))
    if name != CLIPS[0]:
        assert generated != token_ids(model.answer(SlowFast()(model.encode(frames)), QUESTIONS, max_new_tokens=16))


def test_frames_that_do_not_fit_the_memory_are_encoded_in_smaller_batches(checkpoints, frames, monkeypatch):
    model, sizes = load_model(checkpoints()), []
    whole, inner = model.encode(frames), model._encode

    def small(pixels, batch, encoder):
        sizes.append(batch)
        if batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(pixels, batch, encoder)

    monkeypatch.setattr(model, "_encode", small)
    torch.testing.assert_close(model.encode(frames), whole, atol=1e-5, rtol=1e-5)
    model.encode(frames)
    assert sizes == [2, 1, 1]  # what fits is remembered
    record("out of memory: encoding frames", 1, 1, 0, "smaller batches, same tokens")
    with pytest.raises(torch.OutOfMemoryError):
        monkeypatch.setattr(model, "_encode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
        model.encode(frames)


def test_past_the_positions_of_the_checkpoint(models, frames, caplog):
    """50 frames of 8x8 and 10 slow ones are 6,080 tokens: one question at a time, with one warning."""
    model = models()
    model._answering._warned = False
    tokens = parse_aggregation("slowfast-slow_10frms_spatial_1d_max_pool-fast_8x8")(model.encode(frames))
    with caplog.at_level(logging.WARNING, "sfllava"):
        generated = token_ids(model.answer(tokens, QUESTIONS[:3], max_new_tokens=6))
        model.answer(tokens, QUESTIONS[:1], max_new_tokens=2)
    assert generated == token_ids(model.answer(tokens, QUESTIONS[:3], max_new_tokens=6, share_prefix=False))
    assert len([r for r in caplog.records if "past 4096 positions" in r.message]) == 1


def test_crossing_the_limit_while_answering(models, frames):
    model = models()
    tokens = torch.cat([Pool("concat")(model.encode(frames[:7])), Pool("concat")(model.encode(frames[7:8]))[:-600]])
    before, after = (len(part) for part in model.info.prompt_ids(Question(QUESTIONS[0])))
    tokens = tokens[: 4096 - before - after - 5]  # five new tokens fit, then it crosses
    questions = [QUESTIONS[0], QUESTIONS[1], "?"]
    generated = token_ids(model.answer(tokens, questions, max_new_tokens=12))
    assert generated == token_ids(model.answer(tokens, questions, max_new_tokens=12, share_prefix=False))
    assert max(len(s) for s in generated) > 5, "none crossed"


@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_long_prompt_does_not_change_later_ones(checkpoints, frames, share_prefix):
    fresh, used = load_model(checkpoints()), load_model(checkpoints())
    grid = used.encode(frames)
    longer, long = Pool("concat")(grid[:13]), Pool("concat")(grid[:8])
    used.answer(longer, QUESTIONS[:1], max_new_tokens=4)
    rows = {"max_new_tokens": 8, "share_prefix": share_prefix}
    assert token_ids(used.answer(long, QUESTIONS[:1], **rows)) == token_ids(
        load_model(checkpoints()).answer(long, QUESTIONS[:1], **rows)
    )
    tokens = SlowFast()(grid)
    assert token_ids(used.answer(tokens, QUESTIONS, **rows)) == token_ids(fresh.answer(tokens, QUESTIONS, **rows))
    # a prompt of exactly the limit, after a longer one
    before, after = (len(part) for part in used.info.prompt_ids(Question("what?")))
    edge = longer[: 4096 - before - after]
    used.answer(longer, ["what?"], max_new_tokens=1)
    assert token_ids(used.answer(edge, ["what?"], max_new_tokens=1)) == token_ids(
        fresh.answer(edge, ["what?"], max_new_tokens=1)
    )


def test_too_many_tokens_are_refused_before_any_compute(models, frames, monkeypatch):
    model = models()
    tokens = Pool("concat")(model.encode(frames[:15]))
    monkeypatch.setattr(model.language_model, "forward", lambda *a, **k: pytest.fail("computed"))
    with pytest.raises(ContextError, match=r"8640 visual and \d+ text tokens do not fit the context of 8192"):
        model.answer(tokens, ["what?"])
    with pytest.raises(ContextError, match="do not fit"):
        model.answer(tokens[:8000], ["what?", "very long " * 200])


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_answers_stop_at_the_end_of_the_context(models, frames, family):
    model = models(family)
    grid = model.encode(frames[:15])
    before, after = (len(part) for part in model.info.prompt_ids(Question("what?")))
    tokens = Pool("concat")(grid)[: 8192 - before - after - 3]
    generated = model.answer(tokens, ["what?"], max_new_tokens=50)[0].token_ids
    assert len(generated) == 3
    assert generated == model.answer(tokens, ["what?"], max_new_tokens=50, share_prefix=False)[0].token_ids


def test_bos_comes_first_and_once(models):
    question = Question("what?")
    before, after = models().info.prompt_ids(question)
    assert before[0] == 1 and 1 not in before[1:] + after
    assert models().info.prompt_ids(question, Prompt("<s>USER: <video>{question}"))[0].count(1) == 1
    before, _ = models("chatml").info.prompt_ids(question)
    assert before[0] == models("chatml").info.tokenizer.token_id("<|im_start|>") and 1 not in before


def test_pieces_are_tokenized_separately(models):
    model = models()
    before, after = model.info.prompt_ids(Question("the raft"), Prompt("on<video> {question}"))
    assert before == [1, *model.info.tokenizer.encode("on")]
    assert after == model.info.tokenizer.encode(" the raft")


def test_questions_with_other_text_before_the_video(models, frames):
    """With the question before the video there is one prefix per question; the answers are the same."""
    model = models()
    tokens = SlowFast()(model.encode(frames))
    prompt = Prompt("{question} <video> reply:")
    generated = token_ids(model.answer(tokens, QUESTIONS[:3], prompt=prompt, max_new_tokens=8))
    assert generated == token_ids(
        model.answer(tokens, QUESTIONS[:3], prompt=prompt, max_new_tokens=8, share_prefix=False)
    )
    assert len(set(generated)) == 3


def test_letters_from_logits(models, frames, caplog):
    model = models()
    tokens = SlowFast()(model.encode(frames))
    questions = [
        Question("what is it", options=("a cat", "a dog", "a raft"), task="choice"),
        Question("where", options=("river", "gym", "road", "sky", "sea"), task="choice"),
    ]
    answers = model.answer(tokens, questions, answer_mode="logits")
    for question, answer in zip(questions, answers):
        assert list(answer.letters) == list(LETTERS[: len(question.options)])
        assert sum(answer.letters.values()) == pytest.approx(1)
        assert answer.text == max(answer.letters, key=lambda x: answer.letters[x])
        # the reference: one forward of the whole prompt, and the logits of the letters
        before, after = model.info.prompt_ids(question)
        with torch.no_grad():
            logits = model.language_model.logits(
                model.language_model.run(model.language_model.prompt(before, tokens, after))[0, -1]
            )
        rows = [model.info.tokenizer._sentencepiece.piece_to_id(x) for x in answer.letters]
        torch.testing.assert_close(
            torch.tensor(list(answer.letters.values())), logits[rows].softmax(-1), atol=1e-5, rtol=1e-4
        )
    long, model._answering._warned = Pool("concat")(model.encode(frames[:8])), False
    with caplog.at_level(logging.WARNING, "sfllava"):
        assert len(model.answer(long, questions, answer_mode="logits")[1].letters) == 5
    assert "past 4096 positions" in caplog.text
    with pytest.raises(SfllavaError, match="needs questions with options"):
        model.answer(tokens, ["what?"], answer_mode="logits")


def test_no_questions_and_bad_arguments(models, frames):
    model = models()
    tokens = SlowFast()(model.encode(frames[:4]))
    assert model.answer(tokens, []) == []
    with pytest.raises(SfllavaError, match="max_new_tokens must be at least 1, got 0"):
        model.answer(tokens, ["?"], max_new_tokens=0)
    with pytest.raises(SfllavaError, match="answer_mode must be generate or logits, got 'guess'"):
        model.answer(tokens, ["?"], answer_mode="guess")


def test_a_sliding_window_is_respected(tmp_path, frames):
    """Mistral 0.1 attends to a window only; past it, transformers' own masks are used."""
    from sfllava.models.tiny.random_checkpoint import write_random_checkpoint

    model = load_model(write_random_checkpoint(tmp_path, "original", "mistral", text={"sliding_window": 256}))
    assert model.language_model.shared_positions == 256
    tokens = SlowFast(2, "spatial_2d_avg_pool", (2, 2))(model.encode(frames[:8]))
    generated = model.answer(tokens, QUESTIONS[:2], max_new_tokens=6)
    assert token_ids(generated) == token_ids(model.answer(tokens, QUESTIONS[:2], max_new_tokens=6, share_prefix=False))
