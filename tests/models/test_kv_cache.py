from __future__ import annotations

import torch
from video_questions import QUESTIONS, token_ids

from sfllava.aggregators.pools import Pool
from sfllava.aggregators.slowfast import SlowFast
from sfllava.models import answering, packed_decoding
from sfllava.models.kv_cache import packed_mask


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
