from __future__ import annotations

import logging
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLIPS
from fault_table import record
from PIL import Image
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import CLIPImageProcessor, LlavaNextConfig, LlavaNextForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import Pool
from sfllava.aggregators.slowfast import SlowFast
from sfllava.models import answering
from sfllava.models import packed_decoding as packed
from sfllava.models.attention import grouped_attention
from sfllava.models.base import ContextError
from sfllava.models.families.llava_next import FAMILY
from sfllava.models.finite import LogitsError, not_finite
from sfllava.models.kv_cache import packed_mask
from sfllava.models.load import assemble, load_model
from sfllava.models.tokenizer import Tokenizer
from sfllava.prompts import LETTERS, Prompt
from sfllava.sampler.reading import read_video
from sfllava.types import Question, SfllavaError

QUESTIONS = [
    "what?",
    "what is the color of the barrels of the raft?",
    "where does it take place and what do they do, and who does it? " * 4,
    "how many animals are there: one, two, three?",
    "is it é \n new?",
]
SETTINGS = [
    "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4",
    "slowfast-slow_0frms_concat-fast_4x4",
    "slowfast-slow_4frms_spatial_2d_avg_pool-fast_0x0",
    "slowfast-slow_5frms_concat-fast_1x1",
    "spatial_temporal_pool",
]


@pytest.fixture(scope="module")
def frames(clip):
    return read_video(clip, 50).frames


def ids(answers):
    return [answer.token_ids for answer in answers]


def test_features_are_transformers_own(models, checkpoints, frames):
    """PIL and CLIP's processor frame by frame, all layers, hidden state -2 without CLS, then the projector."""
    model = models("vicuna", "transformers")
    plain = LlavaNextForConditionalGeneration.from_pretrained(checkpoints("vicuna", "transformers"))
    processor = CLIPImageProcessor(size={"height": 336, "width": 336}, do_center_crop=False)
    images = [Image.fromarray(frame).resize((336, 336)) for frame in frames[:6]]
    pixels = torch.cat([processor(image, return_tensors="pt")["pixel_values"] for image in images])
    with torch.no_grad():
        hidden = plain.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        wanted = plain.model.multi_modal_projector(hidden).reshape(6, 24, 24, -1)
    got = model.encode(frames[:6])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert len(model.language_model.network.model.vision_tower.encoder.layers) == 2, (
        "the layer behind hidden state -2 is in vain"
    )
    torch.testing.assert_close(model.encode(frames[:6], batch=1), got, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_frames_of_another_kind_are_refused(models, frames):
    with pytest.raises(SfllavaError, match=r"needed uint8 frames of shape \(T H W 3\)"):
        models().encode(frames)


@pytest.mark.parametrize("family", ["vicuna", "mistral", "chatml"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_shared_prefix_equals_plain_generation(models, frames, family, setting):
    model = models(family)
    tokens = parse_aggregation(setting)(model.encode(frames))
    together = model.answer(tokens, QUESTIONS, max_new_tokens=24)
    assert ids(together) == ids(model.answer(tokens, QUESTIONS, max_new_tokens=24, share_prefix=False))
    assert [a.visual_tokens for a in together] == [len(tokens)] * len(QUESTIONS)
    assert len(set(ids(together))) > 1


@pytest.mark.parametrize("name", CLIPS)
def test_each_clip_gets_its_own_answers(models, shared, name, frames):
    model = models()
    tokens = SlowFast()(model.encode(read_video(shared / "clips" / f"{name}.mp4", 50).frames))
    said = ids(model.answer(tokens, QUESTIONS, max_new_tokens=16))
    assert said == ids(model.answer(tokens, QUESTIONS, max_new_tokens=16, share_prefix=False))
    if name != CLIPS[0]:
        assert said != ids(model.answer(SlowFast()(model.encode(frames)), QUESTIONS, max_new_tokens=16))


def test_some_end_early(checkpoints, frames):
    model = load_model(checkpoints())
    tokens = SlowFast()(model.encode(frames))
    free = model.answer(tokens, QUESTIONS, max_new_tokens=24)
    # let tokens that some of them say early be the end: the third of one, the sixth of another
    ends = {free[1].token_ids[3], free[3].token_ids[6]}
    model.language_model.eos_ids = ends
    model.language_model.network.generation_config.eos_token_id = sorted(ends)
    together = model.answer(tokens, QUESTIONS, max_new_tokens=24)
    assert ids(together) == ids(model.answer(tokens, QUESTIONS, max_new_tokens=24, share_prefix=False))
    lengths = [len(a.token_ids) for a in together]
    assert min(lengths) <= 3 and len(set(lengths)) > 1
    assert not any(end in a.token_ids for a in together for end in ends)


def test_groups_bound_the_memory(models, frames, monkeypatch):
    model = models()
    tokens = SlowFast()(model.encode(frames))
    whole = model.answer(tokens, QUESTIONS * 3, max_new_tokens=8)
    sizes = []

    class Watched(packed.PackedBatch):
        def __init__(self, model, lanes):
            super().__init__(model, lanes)
            layer, prefix = lanes[0].prefix.cache.layers[0], lanes[0].prefix
            room = layer.room.spaces[0].shape[-2] - prefix.length
            sizes.append((len(lanes[0].suffixes), room, layer.room.spaces[0].data_ptr()))

    monkeypatch.setattr(packed, "PackedBatch", Watched)
    monkeypatch.setattr(answering, "PACKED_POSITIONS", 250)
    assert ids(model.answer(tokens, QUESTIONS * 3, max_new_tokens=8)) == ids(whole)
    assert len(sizes) > 3 and sum(n for n, _, _ in sizes) == 15
    assert all(room <= 250 or n == 1 for n, room, _ in sizes)
    assert len({pointer for _, _, pointer in sizes}) == 1, "the prefix was copied"


@pytest.mark.parametrize("family", ["vicuna", "mistral", "chatml"])
def test_several_videos_at_a_time_equal_one_by_one(models, shared, family):
    """Real clips at different lengths, one with no question, one with several."""
    model = models(family)
    lengths = [(12, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4"), (4, "slowfast-slow_0frms_concat-fast_3x3")]
    tokens = [
        parse_aggregation(name)(model.encode(read_video(shared / "clips" / f"{clip}.mp4", frames).frames))
        for clip, (frames, name) in zip(CLIPS, [*lengths, lengths[0]])
    ]
    sides = list(zip(tokens, [QUESTIONS[:1], QUESTIONS[1:], []]))
    together = model.answer_batch(sides, max_new_tokens=20)
    for (tokens, questions), answers in zip(sides, together):
        assert ids(answers) == ids(model.answer(tokens, questions, max_new_tokens=20, share_prefix=False))
    choice = Question("what is it?", task="choice", options=("a raft", "a gym", "a panda"))
    letters = model.answer_batch([(tokens, [choice]) for tokens, _ in sides], answer_mode="logits")
    for (tokens, _), answers in zip(sides, letters):
        alone = model.answer(tokens, [choice], answer_mode="logits")[0]
        assert answers[0].letters == pytest.approx(alone.letters, abs=1e-5) and answers[0].text == alone.text


def test_prefixes_of_several_videos_are_reused(models, frames):
    model = models()
    grid = model.encode(frames)
    front = SlowFast(4, slow=Pool("spatial_2d_avg_pool"), fast=(2, 2))(grid)
    wide = [
        SlowFast(4, slow=Pool("spatial_2d_avg_pool"), fast=(3, 3))(grid),
        SlowFast(4, slow=Pool("spatial_2d_avg_pool"), fast=(4, 4))(grid),
    ]
    prefixes = model.new_prefixes(2)
    model.answer_batch([(front, QUESTIONS[:1]), (front, QUESTIONS[:1])], max_new_tokens=4, prefixes=prefixes)
    again = model.answer_batch([(t, QUESTIONS[:2]) for t in wide], max_new_tokens=12, prefixes=prefixes)
    assert [prefix.reused for prefix in prefixes] == [576, 576]
    assert [ids(a) for a in again] == [ids(model.answer(t, QUESTIONS[:2], max_new_tokens=12)) for t in wide]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_memory_that_is_too_small_for_all_questions(checkpoints, frames, monkeypatch, caplog, most):
    model, tried = load_model(checkpoints()), []
    tokens = SlowFast()(model.encode(frames))
    whole = ids(model.answer(tokens, QUESTIONS, max_new_tokens=8))

    class Small(packed.PackedBatch):
        def __init__(self, model, lanes):
            tried.append(len(lanes[0].suffixes))
            if len(lanes[0].suffixes) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(model, lanes)

    monkeypatch.setattr(packed, "PackedBatch", Small)
    assert ids(model.answer(tokens, QUESTIONS, max_new_tokens=8)) == whole
    assert "the device's memory is too small for more" in caplog.text
    tried.clear()
    prefix = model.new_prefixes(1)[0]
    for reused in (0, len(tokens)):
        assert ids(model.answer(tokens, QUESTIONS, max_new_tokens=8, prefix=prefix)) == whole
        assert prefix.reused == reused
    assert max(tried) <= most, "what fits is remembered"
    record(f"out of memory: room for {most} of {len(QUESTIONS)} questions", 1, 1, 0, "same token ids")


def test_frames_that_do_not_fit_the_memory_are_encoded_in_smaller_batches(checkpoints, frames, monkeypatch):
    model, sizes = load_model(checkpoints()), []
    whole, inner = model.encode(frames), model._encode

    def small(pixels, batch):
        sizes.append(batch)
        if batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(pixels, batch)

    monkeypatch.setattr(model, "_encode", small)
    torch.testing.assert_close(model.encode(frames), whole, atol=1e-5, rtol=1e-5)
    model.encode(frames)
    assert sizes == [8, 4, 2, 2]  # what fits is remembered
    record("out of memory: encoding frames", 1, 1, 0, "smaller batches, same tokens")
    with pytest.raises(torch.OutOfMemoryError):
        monkeypatch.setattr(model, "_encode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
        model.encode(frames)


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_steps_in_fixed_shapes_say_the_same(checkpoints, frames, monkeypatch, family):
    model = load_model(checkpoints(family))
    sides = [
        (parse_aggregation("slowfast-slow_4frms_spatial_2d_avg_pool-fast_2x2")(model.encode(frames)), QUESTIONS[:3]),
        (parse_aggregation("slowfast-slow_0frms_concat-fast_3x3")(model.encode(frames[:5])), QUESTIONS[2:]),
    ]
    free = model.answer_batch(sides, max_new_tokens=24)
    model.language_model.eos_ids = {free[0][1].token_ids[3], free[1][0].token_ids[6]}  # some end early
    plain = model.answer_batch(sides, max_new_tokens=24)
    model.language_model.graphs = True
    # in a CUDA graph's place the same step, in the same fixed shapes
    monkeypatch.setattr(packed.StaticDecodeLoop, "captured", lambda steps: types.SimpleNamespace(replay=steps.step))
    assert [ids(answers) for answers in model.answer_batch(sides, max_new_tokens=24)] == [ids(a) for a in plain]
    again = [model.answer(tokens, questions, max_new_tokens=24) for tokens, questions in sides]
    assert [ids(answers) for answers in again] == [ids(a) for a in plain]


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_nothing_on_the_way_waits_for_the_device(checkpoints, family):
    """On tensors without values, reading one is an error; so is mixing devices. A GPU could thus run ahead."""
    config = LlavaNextConfig.from_pretrained(checkpoints(family))
    config.text_config.rope_parameters |= {"rope_type": "dynamic", "factor": 2.0}
    with torch.device("meta"):
        network = LlavaNextForConditionalGeneration(config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="meta")
        tokenizer = Tokenizer(checkpoints(family))
        made = FAMILY.configure(config.to_dict(), Path(), None)
        facts = {"path": Path(), "layout": "", "context": 8192, "fingerprint": ""}
        model = assemble(network, tokenizer, FAMILY, made, **facts)
        grid = model.encode(np.zeros((4, 336, 336, 3), np.uint8))
        assert grid.device.type == "meta" and grid.shape == (4, 24, 24, config.text_config.hidden_size)
        prefixes = model.new_prefixes(2)
        lanes = []
        for prefix, n in zip(prefixes, (500, 300)):
            model.prefill([1, 5, 6], grid.flatten(0, 2)[:n], 100, prefix)
            lanes.append(packed.PrefixGroup(prefix, [[4, 5, 6], [7, 8]]))
        with torch.inference_mode():
            pack = packed.PackedBatch(model.language_model, lanes)
            assert pack.say([(0, 5), (3, 6)]).shape == (2, config.text_config.vocab_size)
            steps = packed.StaticDecodeLoop(pack, [4, 5, 6, 7], 10)
            steps.step()
            steps.step()
            assert steps.tokens.shape == (2, 2)
            with pytest.raises(DataDependentOutputException):
                steps.said()  # the one look of a step, at what was said


@pytest.fixture
def spoilt(checkpoints):
    """A model that has NaN in the place of one word, of QUESTIONS[3], as where half precision overflows."""
    model = load_model(checkpoints())
    mine, *others = (set(model.info.prompt_ids(Question(q))[1]) for q in (QUESTIONS[3], *QUESTIONS[:3], QUESTIONS[4]))
    with torch.no_grad():
        model.language_model.network.model.language_model.embed_tokens.weight[max(mine.difference(*others))] = torch.nan
    return model


@pytest.mark.parametrize("way", ["packed", "in fixed shapes", "in two packs", "one at a time"])
def test_a_question_whose_logits_are_not_finite_fails_by_itself(models, spoilt, frames, monkeypatch, way):
    """NaN spreads to the questions that are decoded with it, and to what is cached; their answers stay the same."""
    tokens, other = SlowFast()(spoilt.encode(frames)), SlowFast(2, "concat", (1, 1))(spoilt.encode(frames[:5]))
    if way == "in fixed shapes":
        spoilt.language_model.graphs = True
        monkeypatch.setattr(packed.StaticDecodeLoop, "captured", lambda steps: types.SimpleNamespace(replay=steps.step))
    if way == "in two packs":
        monkeypatch.setattr(answering, "PACKED_POSITIONS", 400)
    options = {"max_new_tokens": 16, "share_prefix": way != "one at a time"}
    sides = [(other, QUESTIONS), (tokens, QUESTIONS)]
    prefixes = spoilt.new_prefixes(2)
    for _ in range(2):  # with prefixes that the first has left
        for (tokens, _), answers in zip(sides, spoilt.answer_batch(sides, prefixes=prefixes, **options)):
            assert [a.error is None for a in answers] == [True, True, True, False, True]
            assert "the model's logits are not finite in float32" in str(answers[3].error) and answers[3].text == ""
            wanted = ids(models().answer(tokens, QUESTIONS, max_new_tokens=16))
            assert [said for said, a in zip(ids(answers), answers) if not a.error] == [*wanted[:3], wanted[4]]
    with pytest.raises(LogitsError, match=r"'how many animals are there.*logits are not finite"):
        spoilt.answer(tokens, QUESTIONS, **options)
    assert not spoilt.answer(tokens, QUESTIONS[:1], **options)[0].error


@pytest.mark.parametrize("length", [3680, 4090])  # up to the shared positions, and past them
def test_a_stream_and_letters_without_finite_logits(models, spoilt, frames, length):
    tokens = Pool("concat")(spoilt.encode(frames[:8]))[:length]
    prefix = spoilt.new_prefixes(1)[0]
    with pytest.raises(LogitsError, match="not finite"):
        list(spoilt.stream(tokens, QUESTIONS[3], max_new_tokens=4, prefix=prefix))
    said = tuple(spoilt.stream(tokens, QUESTIONS[0], max_new_tokens=4, prefix=prefix))
    assert said == models().answer(tokens, QUESTIONS[:1], max_new_tokens=4)[0].token_ids
    choices = [Question(text, task="choice", options=("a raft", "a gym")) for text in QUESTIONS]
    wanted = [answer.letters for answer in models().answer(tokens, choices, answer_mode="logits")]
    answers = spoilt.answer_batch([(tokens, choices)], answer_mode="logits")[0]
    assert answers[3].error and answers[3].text == "" and answers[3].letters == {}
    assert all(a.letters == pytest.approx(w, abs=1e-5) for a, w in zip(answers, wanted) if a is not answers[3])


def test_half_precision_that_overflows_says_what_to_try():
    assert "float16 overflows; try --dtype bfloat16 or float32" in not_finite(torch.float16)


def test_grouped_heads_attend_as_copied_keys_do():
    module = types.SimpleNamespace(num_key_value_groups=3, is_causal=True)
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 11, 8), torch.randn(2, 2, 11, 8)
    mask = torch.rand(2, 1, 5, 11) > 0.4
    mask[..., 0] = True
    got, _ = grouped_attention(module, query, key, value, mask, scaling=0.3)
    wanted, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


def test_the_mask_by_hand():
    owners, queries = torch.tensor([[0, 0, 1, 0, 1]]), torch.tensor([[0, 1]])
    assert packed_mask(torch.tensor([2]), 2, owners, queries)[0, 0].int().tolist() == [
        [1, 1, 1, 1, 0, 1, 0],
        [1, 1, 0, 0, 1, 0, 1],
    ]
    own = torch.tensor([[0, 0, 1]])
    assert packed_mask(torch.tensor([0]), 0, own, own)[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    # two videos, prefixes of 1 and 2; the second has one question less, and what fills it up sees only itself
    two = packed_mask(torch.tensor([1, 2]), 2, torch.tensor([[0, 1], [2, -1]]), torch.tensor([[0, 1], [2, -1]]))
    assert two[:, 0].int().tolist() == [[[1, 0, 1, 0], [1, 0, 0, 1]], [[1, 1, 1, 0], [1, 1, 0, 1]]]


def test_past_the_checkpoint_s_positions(models, frames, caplog):
    """50 frames of 8x8 and 10 slow ones are 6,080 tokens: one question at a time, and said once."""
    model = models()
    model._answering._warned = False
    tokens = parse_aggregation("slowfast-slow_10frms_spatial_1d_max_pool-fast_8x8")(model.encode(frames))
    with caplog.at_level(logging.WARNING, "sfllava"):
        said = ids(model.answer(tokens, QUESTIONS[:3], max_new_tokens=6))
        model.answer(tokens, QUESTIONS[:1], max_new_tokens=2)
    assert said == ids(model.answer(tokens, QUESTIONS[:3], max_new_tokens=6, share_prefix=False))
    assert len([r for r in caplog.records if "past 4096 positions" in r.message]) == 1


def test_crossing_the_limit_while_answering(models, frames):
    model = models()
    tokens = torch.cat([Pool("concat")(model.encode(frames[:7])), Pool("concat")(model.encode(frames[7:8]))[:-600]])
    before, after = (len(part) for part in model.info.prompt_ids(Question(QUESTIONS[0])))
    tokens = tokens[: 4096 - before - after - 5]  # five new tokens fit, then it crosses
    questions = [QUESTIONS[0], QUESTIONS[1], "?"]
    said = ids(model.answer(tokens, questions, max_new_tokens=12))
    assert said == ids(model.answer(tokens, questions, max_new_tokens=12, share_prefix=False))
    assert max(len(s) for s in said) > 5, "none crossed"


@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_long_prompt_leaves_later_ones_alone(checkpoints, frames, share_prefix):
    fresh, used = load_model(checkpoints()), load_model(checkpoints())
    grid = used.encode(frames)
    longer, long = Pool("concat")(grid[:13]), Pool("concat")(grid[:8])
    used.answer(longer, QUESTIONS[:1], max_new_tokens=4)
    rows = {"max_new_tokens": 8, "share_prefix": share_prefix}
    assert ids(used.answer(long, QUESTIONS[:1], **rows)) == ids(
        load_model(checkpoints()).answer(long, QUESTIONS[:1], **rows)
    )
    tokens = SlowFast()(grid)
    assert ids(used.answer(tokens, QUESTIONS, **rows)) == ids(fresh.answer(tokens, QUESTIONS, **rows))
    # a prompt of exactly the limit, behind a longer one
    before, after = (len(part) for part in used.info.prompt_ids(Question("what?")))
    edge = longer[: 4096 - before - after]
    used.answer(longer, ["what?"], max_new_tokens=1)
    assert ids(used.answer(edge, ["what?"], max_new_tokens=1)) == ids(fresh.answer(edge, ["what?"], max_new_tokens=1))


def test_rope_is_dynamic_with_factor_two(models, checkpoints):
    assert models().language_model.network.config.text_config.rope_parameters == {
        "rope_type": "dynamic",
        "factor": 2.0,
        "rope_theta": 10000.0,
    }
    assert models("mistral").info.context == 8192 and models().info.context == 8192
    plain = load_model(checkpoints(), rope_factor=None)
    assert plain.info.context == 4096 and plain.language_model.shared_positions is None
    assert load_model(checkpoints("mistral"), context=32768).info.context == 32768


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
    said = model.answer(tokens, ["what?"], max_new_tokens=50)[0].token_ids
    assert len(said) == 3
    assert said == model.answer(tokens, ["what?"], max_new_tokens=50, share_prefix=False)[0].token_ids


def test_bos_stands_once_in_front(models):
    question = Question("what?")
    before, after = models().info.prompt_ids(question)
    assert before[0] == 1 and 1 not in before[1:] + after
    assert models().info.prompt_ids(question, Prompt("<s>USER: <video>{question}"))[0].count(1) == 1
    before, _ = models("chatml").info.prompt_ids(question)
    assert before[0] == models("chatml").info.tokenizer.token_id("<|im_start|>") and 1 not in before


def test_pieces_are_tokenized_by_themselves(models):
    model = models()
    before, after = model.info.prompt_ids(Question("the raft"), Prompt("on<video> {question}"))
    assert before == [1, *model.info.tokenizer.encode("on")]
    assert after == model.info.tokenizer.encode(" the raft")


def test_questions_with_other_text_before_the_video(models, frames):
    """Where the question stands before the video there is one prefix a question; the answers are the same."""
    model = models()
    tokens = SlowFast()(model.encode(frames))
    prompt = Prompt("{question} <video> reply:")
    said = ids(model.answer(tokens, QUESTIONS[:3], prompt=prompt, max_new_tokens=8))
    assert said == ids(model.answer(tokens, QUESTIONS[:3], prompt=prompt, max_new_tokens=8, share_prefix=False))
    assert len(set(said)) == 3


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
        # the plain way: one forward of the whole prompt, the letters' own rows
        before, after = model.info.prompt_ids(question)
        with torch.no_grad():
            logits = model.language_model.logits(
                model.language_model.forward(model.language_model.embed(before, tokens, after))[0, -1]
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
    """Mistral 0.1 sees a window only: past it questions are answered by transformers' own masks."""
    from sfllava.models.tiny.random_checkpoint import write_random_checkpoint

    model = load_model(write_random_checkpoint(tmp_path, "original", "mistral", text={"sliding_window": 256}))
    assert model.language_model.shared_positions == 256
    tokens = SlowFast(2, "spatial_2d_avg_pool", (2, 2))(model.encode(frames[:8]))
    said = model.answer(tokens, QUESTIONS[:2], max_new_tokens=6)
    assert ids(said) == ids(model.answer(tokens, QUESTIONS[:2], max_new_tokens=6, share_prefix=False))
