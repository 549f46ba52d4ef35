from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sfllava.aggregators.naming import parse_aggregation
from sfllava.models import replay
from sfllava.models.base import ContextError
from sfllava.models.load import load_model
from sfllava.types import Question, SfllavaError

from conftest import moving_square  # isort: skip

FAMILIES = ["vicuna", "mistral", "chatml"]
QUESTIONS = [
    Question("what is it?"),
    Question("where does it take place and what do they do?", options=("a", "b"), task="choice"),
]
SETTING = parse_aggregation("slowfast-slow_3frms_spatial_2d_avg_pool-fast_2x2")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, models):
    return models(request.param)


@pytest.fixture(scope="module")
def tokens(model):
    return SETTING(model.encode(moving_square(6)))


@pytest.fixture
def crossing(checkpoints):
    """A model of few positions: prompts stand past the limit up to which a prefix is shared."""

    def load(positions: int):
        model = load_model(checkpoints())
        model.language_model.shared_positions = positions
        return model

    return load


def plain(model, tokens, question, said):
    """Logits and attentions of one eager forward over prompt and answer, all layers and heads kept."""
    before, after = model.info.prompt_ids(question)
    embed = model.language_model.network.model.language_model.embed_tokens
    parts = [embed(torch.tensor(before)), tokens, embed(torch.tensor([*after, *said[:-1]]))]
    used = model.language_model.network.config.text_config._attn_implementation
    model.language_model.network.set_attn_implementation("eager")
    model.language_model.reset_rope()
    try:
        with torch.inference_mode():
            out = model.language_model.network.model.language_model(
                inputs_embeds=torch.cat(parts)[None], output_attentions=True
            )
            rows = slice(len(before) + len(tokens) + len(after) - 1, None)
            logits = model.language_model.network.lm_head(out.last_hidden_state[0, rows])
    finally:
        model.language_model.network.set_attn_implementation(used)
    seen = torch.stack(out.attentions)[:, 0, :, rows, len(before) : len(before) + len(tokens)]
    return logits.clone(), seen.mean((0, 1)).clone()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stream_is_the_answer(model, tokens, question):
    answer = model.answer(tokens, [question], max_new_tokens=24)[0]
    prefix = model.new_prefixes(1)[0]
    assert tuple(model.stream(tokens, question, max_new_tokens=24)) == answer.token_ids
    assert tuple(model.stream(tokens, question, max_new_tokens=24, prefix=prefix)) == answer.token_ids
    steps = model.stream(tokens, question, max_new_tokens=24, prefix=prefix)
    assert [next(steps), next(steps)] == list(answer.token_ids[:2])  # stopped in the middle, and not even closed
    assert model.answer(tokens, [question], max_new_tokens=24, prefix=prefix)[0].token_ids == answer.token_ids
    assert prefix.reused == len(tokens)


def test_a_stream_past_the_shared_limit_is_the_answer(crossing, tokens, models):
    long = crossing(50)
    answer = long.answer(tokens[:, : long.info.shape.language.width], ["what?"], max_new_tokens=12)[0]
    assert tuple(long.stream(tokens, "what?", max_new_tokens=12)) == answer.token_ids


def test_a_stream_refuses_what_does_not_fit(model, tokens):
    with pytest.raises(ContextError):
        next(model.stream(tokens.repeat(20, 1), "what?"))
    with pytest.raises(SfllavaError, match="max_new_tokens"):
        next(model.stream(tokens, "what?", max_new_tokens=0))


@pytest.mark.parametrize("question", QUESTIONS)
def test_scores_and_attention_are_those_of_an_eager_forward(model, tokens, question):
    said = model.answer(tokens, [question], max_new_tokens=9)[0].token_ids
    logits, seen = plain(model, tokens, question, said)
    logits[:, model.language_model.suppressed_ids] = -torch.inf
    wanted = logits.log_softmax(-1)[range(len(said)), list(said)]
    torch.testing.assert_close(replay.log_likelihoods(model, tokens, question, said), wanted, atol=1e-4, rtol=1e-4)
    assert logits.argmax(-1).tolist() == list(said), "greedy, so the answer is likeliest at each step"
    got = replay.attention_weights(model, tokens, question, said)
    torch.testing.assert_close(got, seen, atol=1e-6, rtol=1e-3)
    assert got.shape == (len(said), len(tokens)) and ((got.sum(1) > 0) & (got.sum(1) < 1)).all()


def test_rows_in_parts_are_the_same(model, tokens, monkeypatch):
    said = model.answer(tokens, ["what?"], max_new_tokens=9)[0].token_ids
    whole = replay.attention_weights(model, tokens, Question("what?"), said)
    monkeypatch.setattr(replay, "ROWS", 2)
    torch.testing.assert_close(replay.attention_weights(model, tokens, Question("what?"), said), whole)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that any operation inside makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else [out]:
            if isinstance(made, torch.Tensor):
                self.numbers = max(self.numbers, made.numel())
        return out


def test_no_attention_matrix_is_ever_whole(model):
    tokens = torch.randn(1500, model.info.shape.language.width, generator=torch.Generator().manual_seed(0))
    question = Question("what?")
    said = model.answer(tokens, [question], max_new_tokens=60)[0].token_ids
    with Largest() as seen:
        replay.attention_weights(model, tokens, question, said)
    layers, heads = model.info.shape.language.count, model.info.shape.language.heads
    one = heads * (len(tokens) + len(said)) ** 2  # of one layer
    assert len(said) == 60 and tokens.numel() <= seen.numbers < one / 4, (
        f"{seen.numbers:,} of {one:,}, in {layers} layers"
    )


def test_one_by_one_past_the_limit_is_the_same_below_it(crossing, models):
    """Where RoPE does not change yet, the way of long prompts and the shared prefix must agree."""
    model, alone = models(), crossing(50)
    tokens = SETTING(model.encode(moving_square(6)))
    question = Question("what is it?")
    said = model.answer(tokens, [question], max_new_tokens=7)[0].token_ids
    for read in (replay.log_likelihoods, replay.attention_weights):
        torch.testing.assert_close(
            read(alone, tokens, question, said), read(model, tokens, question, said), atol=1e-5, rtol=1e-3
        )


def test_past_the_limit_the_answer_is_still_the_likeliest(checkpoints):
    """Really past the checkpoint's positions, where dynamic RoPE turns keys by the length: as it was said."""
    model = load_model(checkpoints())
    tokens = torch.randn(
        model.language_model.shared_positions + 40,
        model.info.shape.language.width,
        generator=torch.Generator().manual_seed(0),
    )
    question = Question("what?")
    said = model.answer(tokens, [question], max_new_tokens=4)[0].token_ids
    assert tuple(model.stream(tokens, question, max_new_tokens=4)) == said
    rows = torch.cat(list(replay._replay(model, tokens, question, said, None, None)))
    assert model.language_model.logits(rows).argmax(-1).tolist() == list(said)


def test_a_kept_prefix_is_as_it_was(model, tokens):
    question, prefix = QUESTIONS[0], model.new_prefixes(1)[0]
    hooks = [len(module._forward_hooks) for module in model.language_model.network.modules()]
    said = model.answer(tokens, [question], max_new_tokens=9, prefix=prefix)[0].token_ids
    first = replay.log_likelihoods(model, tokens, question, said, prefix=prefix)
    replay.attention_weights(model, tokens, question, said, prefix=prefix)
    assert torch.equal(replay.log_likelihoods(model, tokens, question, said, prefix=prefix), first)
    assert model.answer(tokens, [question], max_new_tokens=9, prefix=prefix)[0].token_ids == said
    assert [len(module._forward_hooks) for module in model.language_model.network.modules()] == hooks
    assert math.isfinite(first.sum())


def test_an_empty_answer_has_nothing_to_read(model, tokens):
    with pytest.raises(SfllavaError, match="at least one token"):
        replay.attention_weights(model, tokens, QUESTIONS[0], ())


def test_attention_in_float16_does_not_overflow():
    """q k is 102,400, more than float16 can hold; divided by sqrt(64) it is 12,800."""
    module = SimpleNamespace(q_proj=torch.nn.Identity(), head_dim=64, num_key_value_groups=1, scaling=64**-0.5)
    hidden = torch.full((1, 1, 64), 40.0, dtype=torch.float16)
    rotation = (torch.ones(1, 1, 64, dtype=torch.float16), torch.zeros(1, 1, 64, dtype=torch.float16))
    keys, total = torch.full((1, 1, 4, 64), 40.0, dtype=torch.float16), torch.zeros(1, 3)
    replay._add_rows(module, hidden, rotation, keys, torch.arange(3), total)
    torch.testing.assert_close(total, torch.full((1, 3), 0.25))
