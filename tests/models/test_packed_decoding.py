from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLIPS
from fault_table import record
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from video_questions import QUESTIONS, token_ids

from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import Pool
from sfllava.aggregators.slowfast import SlowFast
from sfllava.models import answering, packed_decoding
from sfllava.models.attention import grouped_attention
from sfllava.models.families.llava_next import FAMILY
from sfllava.models.family import LoadOptions
from sfllava.models.finite import LogitsError, not_finite
from sfllava.models.load import assemble, load_model
from sfllava.models.tokenizer import Tokenizer
from sfllava.sampler.reading import read_video
from sfllava.types import Question

SETTINGS = [
    "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4",
    "slowfast-slow_0frms_concat-fast_4x4",
    "slowfast-slow_4frms_spatial_2d_avg_pool-fast_0x0",
    "slowfast-slow_5frms_concat-fast_1x1",
    "spatial_temporal_pool",
]


@pytest.mark.parametrize("family", ["vicuna", "mistral", "chatml"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_shared_prefix_equals_plain_generation(models, frames, family, setting):
    model = models(family)
    tokens = parse_aggregation(setting)(model.encode(frames))
    together = model.answer(tokens, QUESTIONS, max_new_tokens=24)
    assert token_ids(together) == token_ids(model.answer(tokens, QUESTIONS, max_new_tokens=24, share_prefix=False))
    assert [a.visual_tokens for a in together] == [len(tokens)] * len(QUESTIONS)
    assert len(set(token_ids(together))) > 1


def test_answers_that_end_early(checkpoints, frames):
    model = load_model(checkpoints())
    tokens = SlowFast()(model.encode(frames))
    free = model.answer(tokens, QUESTIONS, max_new_tokens=24)
    # end the answers at tokens that two of them contain early: index 3 of one, index 6 of another
    ends = {free[1].token_ids[3], free[3].token_ids[6]}
    model.language_model.eos_ids = ends
    model.language_model.network.generation_config.eos_token_id = sorted(ends)
    together = model.answer(tokens, QUESTIONS, max_new_tokens=24)
    assert token_ids(together) == token_ids(model.answer(tokens, QUESTIONS, max_new_tokens=24, share_prefix=False))
    lengths = [len(a.token_ids) for a in together]
    assert min(lengths) <= 3 and len(set(lengths)) > 1
    assert not any(end in a.token_ids for a in together for end in ends)


@pytest.mark.parametrize("family", ["vicuna", "mistral", "chatml"])
def test_several_videos_together_equal_one_by_one(models, shared, family):
    """Real clips of different lengths, one without questions, one with several."""
    model = models(family)
    lengths = [(12, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4"), (4, "slowfast-slow_0frms_concat-fast_3x3")]
    tokens = [
        parse_aggregation(name)(model.encode(read_video(shared / "clips" / f"{clip}.mp4", frames).frames))
        for clip, (frames, name) in zip(CLIPS, [*lengths, lengths[0]])
    ]
    videos = list(zip(tokens, [QUESTIONS[:1], QUESTIONS[1:], []]))
    together = model.answer_batch(videos, max_new_tokens=20)
    for (tokens, questions), answers in zip(videos, together):
        assert token_ids(answers) == token_ids(model.answer(tokens, questions, max_new_tokens=20, share_prefix=False))
    choice = Question("what is it?", task="choice", options=("a raft", "a gym", "a panda"))
    letters = model.answer_batch([(tokens, [choice]) for tokens, _ in videos], answer_mode="logits")
    for (tokens, _), answers in zip(videos, letters):
        alone = model.answer(tokens, [choice], answer_mode="logits")[0]
        assert answers[0].letters == pytest.approx(alone.letters, abs=1e-5) and answers[0].text == alone.text


@pytest.mark.parametrize("most", [1, 2, 3])
def test_memory_that_is_too_small_for_all_questions(checkpoints, frames, monkeypatch, caplog, most):
    model, tried = load_model(checkpoints()), []
    tokens = SlowFast()(model.encode(frames))
    whole = token_ids(model.answer(tokens, QUESTIONS, max_new_tokens=8))

    class Small(packed_decoding.PackedBatch):
        def __init__(self, model, groups):
            tried.append(len(groups[0].suffixes))
            if len(groups[0].suffixes) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(model, groups)

    monkeypatch.setattr(packed_decoding, "PackedBatch", Small)
    assert token_ids(model.answer(tokens, QUESTIONS, max_new_tokens=8)) == whole
    assert "the device's memory is too small for more" in caplog.text
    tried.clear()
    prefix = model.new_prefixes(1)[0]
    for reused in (0, len(tokens)):
        assert token_ids(model.answer(tokens, QUESTIONS, max_new_tokens=8, prefix=prefix)) == whole
        assert prefix.reused == reused
    assert max(tried) <= most, "what fits is remembered"
    record(f"out of memory: room for {most} of {len(QUESTIONS)} questions", 1, 1, 0, "same token ids")


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_the_static_decode_loop_gives_the_same_answers(checkpoints, frames, monkeypatch, family):
    model = load_model(checkpoints(family))
    videos = [
        (parse_aggregation("slowfast-slow_4frms_spatial_2d_avg_pool-fast_2x2")(model.encode(frames)), QUESTIONS[:3]),
        (parse_aggregation("slowfast-slow_0frms_concat-fast_3x3")(model.encode(frames[:5])), QUESTIONS[2:]),
    ]
    free = model.answer_batch(videos, max_new_tokens=24)
    model.language_model.eos_ids = {free[0][1].token_ids[3], free[1][0].token_ids[6]}  # some end early
    plain = model.answer_batch(videos, max_new_tokens=24)
    model.language_model.graphs = True
    # instead of a CUDA graph, the same step in the same fixed shapes
    monkeypatch.setattr(
        packed_decoding.StaticDecodeLoop, "capture", lambda loop: types.SimpleNamespace(replay=loop.step)
    )
    assert [token_ids(answers) for answers in model.answer_batch(videos, max_new_tokens=24)] == [
        token_ids(a) for a in plain
    ]
    again = [model.answer(tokens, questions, max_new_tokens=24) for tokens, questions in videos]
    assert [token_ids(answers) for answers in again] == [token_ids(a) for a in plain]


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_decoding_does_not_synchronize_the_host(checkpoints, family):
    """Reading a value of a fake tensor is an error, and so is mixing devices: a GPU could run ahead of the host."""
    config = LlavaNextConfig.from_pretrained(checkpoints(family))
    config.text_config.rope_parameters |= {"rope_type": "dynamic", "factor": 2.0}
    with torch.device("meta"):
        network = LlavaNextForConditionalGeneration(config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="meta")
        tokenizer = Tokenizer(checkpoints(family))
        made = FAMILY.configure(config.to_dict(), Path(), LoadOptions(None))
        facts = {"path": Path(), "layout": "", "context": 8192, "fingerprint": "", "prompt_family": "vicuna"}
        model = assemble(network, tokenizer, FAMILY, made, **facts)
        grid = model.encode(np.zeros((4, 336, 336, 3), np.uint8))
        assert grid.device.type == "meta" and grid.shape == (4, 24, 24, config.text_config.hidden_size)
        prefixes = model.new_prefixes(2)
        groups = []
        for prefix, n in zip(prefixes, (500, 300)):
            model.prefill([1, 5, 6], grid.flatten(0, 2)[:n], 100, prefix)
            groups.append(packed_decoding.PrefixGroup(prefix, [[4, 5, 6], [7, 8]]))
        with torch.inference_mode():
            batch = packed_decoding.PackedBatch(model.language_model, groups)
            assert batch.decode_step([(0, 5), (3, 6)]).shape == (2, config.text_config.vocab_size)
            loop = packed_decoding.StaticDecodeLoop(batch, [4, 5, 6, 7], 10)
            loop.step()
            loop.step()
            assert loop.tokens.shape == (2, 2)
            with pytest.raises(DataDependentOutputException):
                loop.newest_ids()  # the one synchronization of a step


@pytest.fixture
def model_with_nan(checkpoints):
    """A model with NaN in the embedding of a word that only QUESTIONS[3] has, as where half precision overflows."""
    model = load_model(checkpoints())
    mine, *others = (set(model.info.prompt_ids(Question(q))[1]) for q in (QUESTIONS[3], *QUESTIONS[:3], QUESTIONS[4]))
    with torch.no_grad():
        model.language_model.network.model.language_model.embed_tokens.weight[max(mine.difference(*others))] = torch.nan
    return model


@pytest.mark.parametrize("way", ["packed", "in fixed shapes", "in two batches", "one at a time"])
def test_a_question_whose_logits_are_not_finite_fails_alone(models, model_with_nan, frames, monkeypatch, way):
    """NaN spreads to the cache and to the questions in the same batch; their answers stay the same."""
    tokens, other = (
        SlowFast()(model_with_nan.encode(frames)),
        SlowFast(2, "concat", (1, 1))(model_with_nan.encode(frames[:5])),
    )
    if way == "in fixed shapes":
        model_with_nan.language_model.graphs = True
        monkeypatch.setattr(
            packed_decoding.StaticDecodeLoop, "capture", lambda loop: types.SimpleNamespace(replay=loop.step)
        )
    if way == "in two batches":
        monkeypatch.setattr(answering, "PACKED_POSITIONS", 400)
    options = {"max_new_tokens": 16, "share_prefix": way != "one at a time"}
    videos = [(other, QUESTIONS), (tokens, QUESTIONS)]
    prefixes = model_with_nan.new_prefixes(2)
    for _ in range(2):  # the second time with the prefixes of the first
        for (tokens, _), answers in zip(videos, model_with_nan.answer_batch(videos, prefixes=prefixes, **options)):
            assert [a.error is None for a in answers] == [True, True, True, False, True]
            assert "the model's logits are not finite in float32" in str(answers[3].error) and answers[3].text == ""
            wanted = token_ids(models().answer(tokens, QUESTIONS, max_new_tokens=16))
            assert [generated for generated, a in zip(token_ids(answers), answers) if not a.error] == [
                *wanted[:3],
                wanted[4],
            ]
    with pytest.raises(LogitsError, match=r"'how many animals are there.*logits are not finite"):
        model_with_nan.answer(tokens, QUESTIONS, **options)
    assert not model_with_nan.answer(tokens, QUESTIONS[:1], **options)[0].error


@pytest.mark.parametrize("length", [3680, 4090])  # up to the shared positions, and past them
def test_a_stream_and_letters_without_finite_logits(models, model_with_nan, frames, length):
    tokens = Pool("concat")(model_with_nan.encode(frames[:8]))[:length]
    prefix = model_with_nan.new_prefixes(1)[0]
    with pytest.raises(LogitsError, match="not finite"):
        list(model_with_nan.stream(tokens, QUESTIONS[3], max_new_tokens=4, prefix=prefix))
    generated = tuple(model_with_nan.stream(tokens, QUESTIONS[0], max_new_tokens=4, prefix=prefix))
    assert generated == models().answer(tokens, QUESTIONS[:1], max_new_tokens=4)[0].token_ids
    choices = [Question(text, task="choice", options=("a raft", "a gym")) for text in QUESTIONS]
    wanted = [answer.letters for answer in models().answer(tokens, choices, answer_mode="logits")]
    answers = model_with_nan.answer_batch([(tokens, choices)], answer_mode="logits")[0]
    assert answers[3].error and answers[3].text == "" and answers[3].letters == {}
    assert all(a.letters == pytest.approx(w, abs=1e-5) for a, w in zip(answers, wanted) if a is not answers[3])


def test_half_precision_that_overflows_says_what_to_try():
    assert "float16 overflows; try --dtype bfloat16 or float32" in not_finite(torch.float16)


def test_grouped_attention_equals_attention_with_copied_keys():
    module = types.SimpleNamespace(num_key_value_groups=3, is_causal=True)
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 11, 8), torch.randn(2, 2, 11, 8)
    mask = torch.rand(2, 1, 5, 11) > 0.4
    mask[..., 0] = True
    got, _ = grouped_attention(module, query, key, value, mask, scaling=0.3)
    wanted, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_attention_after_a_cached_front_is_causal(groups):
    """The causal kernel with added queries, next to a mask."""
    module = types.SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    query, key, value = torch.randn(1, 6, 7, 8), *torch.randn(2, 1, 6 // groups, 11, 8)
    mask = torch.ones(7, 11, dtype=torch.bool).tril(4)[None, None]
    got, _ = grouped_attention(module, query, key, value, None, scaling=0.3)
    wanted, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
@pytest.mark.parametrize("cached", [1, 9, 20, 21, 39])
def test_a_prefill_after_a_cached_front_equals_a_whole_one(models, family, cached):
    """With fewer and with more new positions than cached ones."""
    model = models(family).language_model
    inputs = model.prompt([], torch.randn(40, model.width, generator=torch.Generator().manual_seed(cached)))
    with torch.inference_mode():
        wanted = model.run(inputs)
        cache = model.new_prefixes(1)[0].cache
        front = replace(inputs, embeds=inputs.embeds[:, :cached], positions=inputs.positions[:, :cached])
        got = torch.cat([model.run(front, cache), model.run(inputs.from_row(cached), cache)], 1)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
