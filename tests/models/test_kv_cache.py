from __future__ import annotations

import pytest
import torch
from video_questions import QUESTIONS, token_ids

from sfllava.aggregators.pools import Pool
from sfllava.aggregators.slowfast import SlowFast
from sfllava.models import answering, packed_decoding
from sfllava.models.kv_cache import packed_mask
from sfllava.models.language_model import LanguageModel


def test_packed_mask_by_hand():
    key_questions, query_questions = torch.tensor([[0, 0, 1, 0, 1]]), torch.tensor([[0, 1]])
    assert packed_mask(torch.tensor([2]), 2, key_questions, query_questions)[0, 0].int().tolist() == [
        [1, 1, 1, 1, 0, 1, 0],
        [1, 1, 0, 0, 1, 0, 1],
    ]
    own = torch.tensor([[0, 0, 1]])
    assert packed_mask(torch.tensor([0]), 0, own, own)[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    # two videos with prefixes of 1 and 2; the second has one question fewer, and its padding sees only padding
    two = packed_mask(torch.tensor([1, 2]), 2, torch.tensor([[0, 1], [2, -1]]), torch.tensor([[0, 1], [2, -1]]))
    assert two[:, 0].int().tolist() == [[[1, 0, 1, 0], [1, 0, 0, 1]], [[1, 1, 1, 0], [1, 1, 0, 1]]]


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
    assert [token_ids(a) for a in again] == [token_ids(model.answer(t, QUESTIONS[:2], max_new_tokens=12)) for t in wide]


def test_an_equal_front_is_computed_once_for_all_rows(models, frames, monkeypatch):
    """Four choices of Slow frames after one Fast pathway, two of them equal, and another video between them."""
    model, computed = models(), []
    grid = model.encode(frames)
    fast = SlowFast(2, "spatial_2d_avg_pool", (2, 2), order="fast-first")
    tokens = [fast.with_frames(slow, range(12))(grid) for slow in ([0, 20], [5, 30], [5, 40], [0, 20])]
    tokens.insert(2, SlowFast(2, "spatial_2d_avg_pool", (2, 2), order="fast-first")(grid.flip(0)))
    forward = LanguageModel.forward
    monkeypatch.setattr(
        LanguageModel, "forward", lambda self, e, **more: computed.append(e.shape[1]) or forward(self, e, **more)
    )
    prefixes = model.new_prefixes(5)
    answers = model.answer_batch([(t, QUESTIONS[:2]) for t in tokens], max_new_tokens=12, prefixes=prefixes)
    before, n = len(prefixes[0].before), len(tokens[0])
    # 12 frames of 4 Fast tokens, then 144 tokens of each Slow frame
    assert [prefix.reused for prefix in prefixes] == [0, 48, 0, 48 + 144, n]
    assert computed[:5] == [before + n, n - 48, before + len(tokens[2]), 144, 1]
    alone = [model.answer(t, QUESTIONS[:2], max_new_tokens=12, share_prefix=False) for t in tokens]
    assert [token_ids(a) for a in answers] == [token_ids(a) for a in alone]
    # a second setting: each row copies what another row has, if its own has less
    other = [tokens[1], tokens[2], tokens[0], tokens[2], tokens[4]]
    again = model.answer_batch([(t, QUESTIONS[:2]) for t in other], max_new_tokens=12, prefixes=prefixes)
    assert [prefix.reused for prefix in prefixes] == [len(t) for t in other]
    assert [token_ids(a) for a in again] == [token_ids(alone[i]) for i in (1, 2, 0, 2, 4)]


def test_a_row_that_failed_is_not_copied(models, frames, monkeypatch):
    model = models()
    tokens = SlowFast(2, "spatial_2d_avg_pool", (2, 2), order="fast-first")(model.encode(frames))
    prefixes, run = model.new_prefixes(2), LanguageModel.run
    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):

        def fail(self, inputs, cache=None):
            run(self, inputs, cache)
            raise torch.OutOfMemoryError("CUDA out of memory")

        patched.setattr(LanguageModel, "run", fail)
        model.answer_batch([(tokens, QUESTIONS[:1])] * 2, max_new_tokens=4, prefixes=prefixes)
    answers = model.answer_batch([(tokens, QUESTIONS[:1])] * 2, max_new_tokens=4, prefixes=prefixes)
    assert [prefix.reused for prefix in prefixes] == [0, len(tokens)]
    wanted = token_ids(model.answer(tokens, QUESTIONS[:1], max_new_tokens=4))
    assert [token_ids(a) for a in answers] == [wanted, wanted]


def test_groups_bound_the_memory(models, frames, monkeypatch):
    model = models()
    tokens = SlowFast()(model.encode(frames))
    whole = model.answer(tokens, QUESTIONS * 3, max_new_tokens=8)
    sizes = []

    class Watched(packed_decoding.PackedBatch):
        def __init__(self, model, groups):
            super().__init__(model, groups)
            layer, prefix = groups[0].prefix.cache.layers[0], groups[0].prefix
            room = layer.storage.buffers[0].shape[-2] - prefix.length
            sizes.append((len(groups[0].suffixes), room, layer.storage.buffers[0].data_ptr()))

    monkeypatch.setattr(packed_decoding, "PackedBatch", Watched)
    monkeypatch.setattr(answering, "PACKED_POSITIONS", 250)
    assert token_ids(model.answer(tokens, QUESTIONS * 3, max_new_tokens=8)) == token_ids(whole)
    assert len(sizes) > 3 and sum(n for n, _, _ in sizes) == 15
    assert all(room <= 250 or n == 1 for n, room, _ in sizes)
    assert len({pointer for _, _, pointer in sizes}) == 1, "the prefix was copied"
