"""A KV cache for a batch of prompts: written in place, cropped without a copy, filled row by row, read as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sfllava.models.visual_tokens import VisualTokens


class _LayerStorage:
    """The keys and values of one layer, (rows H positions d) each; zeros where nothing has been written yet.

    Attributes:
        capacity: The next allocation has room for at least this many positions.
    """

    def __init__(self, rows: int) -> None:
        self.rows, self.capacity = rows, 0
        self.buffers: tuple[Tensor, ...] = ()

    def grow(self, like: tuple[Tensor, ...], end: int) -> None:
        """Make room for `end` positions; reallocate and copy only if the buffers are too small."""
        if self.buffers and end <= self.buffers[0].shape[2]:
            return
        old, size = self.buffers, max(end, self.capacity)
        # not new_empty: a masked position still enters a product with weight 0, and 0 x NaN is NaN
        self.buffers = tuple(new.new_zeros((self.rows, new.shape[1], size, new.shape[3])) for new in like)
        for buffer, before in zip(self.buffers, old):
            buffer[:, :, : before.shape[2]] = before


class _Layer(DynamicLayer):
    # A DynamicLayer concatenates, which copies the whole prefix in every step. This class writes in place: after the
    # `length` positions that it has, or at `write_positions` where they are set
    def __init__(self, storage: _LayerStorage, rows: slice, length: int) -> None:
        super().__init__()
        self.storage, self.rows, self.length = storage, rows, length
        self.write_positions: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start = self.length
        end = start if self.write_positions is not None else start + key_states.shape[-2]
        self.storage.grow((key_states, value_states), end)
        for buffer, new in zip(self.storage.buffers, (key_states, value_states)):
            if self.write_positions is None:
                buffer[self.rows, :, start:end] = new
            else:
                buffer[self.rows].index_copy_(2, self.write_positions, new)
        self.keys, self.values = (buffer[self.rows, :, :end] for buffer in self.storage.buffers)
        self.length, self.is_initialized = end, True
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length


class KVCacheView(DynamicCache):
    """A view of one row or all rows of a `BatchKVCache`, in the form that transformers takes.

    Args:
        storages: The keys and values of each layer.
        rows: The rows (prompts) of the view.
        length: Number of positions that the view has; new keys and values are written after them.
    """

    def __init__(self, storages: list[_LayerStorage], rows: slice, length: int = 0) -> None:
        super().__init__()
        self.layers = [_Layer(storage, rows, length) for storage in storages]
        self.layer_class_to_replicate = None

    def fix_shapes(self, write_positions: Tensor, length: int) -> None:
        """Give all later forwards the same shapes, as a CUDA graph needs.

        Args:
            write_positions: (Q) Where the next forward writes its keys and values; the caller updates it in place.
            length: Number of positions that every forward returns from now on, written or not.
        """
        for layer in self.layers:
            layer.write_positions, layer.length = write_positions, length  # type: ignore[attr-defined]

    def empty_copy(self) -> KVCacheView:
        """Return an empty view of the same rows, which holds no reference to the keys and values of this one."""
        layers: list[Any] = self.layers
        return KVCacheView([layer.storage for layer in layers], layers[0].rows)

    def crop_to(self, length: int) -> None:
        """Drop all positions from `length` on."""
        for layer in self.layers:
            layer.length = min(layer.length, length)  # type: ignore[attr-defined]

    def extend_from(self, other: KVCacheView, length: int) -> None:
        """Copy what follows the last position, up to `length` positions in all, from other rows of the same storage."""
        layers: list[Any] = self.layers
        others: list[Any] = other.layers
        for layer, source in zip(layers, others):
            for buffer in layer.storage.buffers:
                buffer[layer.rows, :, layer.length : length] = buffer[source.rows, :, layer.length : length]
            layer.length = length


class BatchKVCache:
    """The keys and values of a batch of prompts: each row is prefilled on its own, and all are decoded together.

    Args:
        layers: Number of decoder layers.
        rows: Number of prompts, one per row.
    """

    def __init__(self, layers: int, rows: int) -> None:
        self.rows = rows
        self._storages = [_LayerStorage(rows) for _ in range(layers)]

    def row(self, i: int) -> KVCacheView:
        """Return an empty view of row i."""
        return KVCacheView(self._storages, slice(i, i + 1))

    def all_rows(self, length: int) -> KVCacheView:
        """Return a view of all rows with their first `length` positions."""
        return KVCacheView(self._storages, slice(None), length)

    def reserve(self, capacity: int) -> None:
        """Make the next allocation have room for at least `capacity` positions."""
        for storage in self._storages:
            storage.capacity = capacity

    def clear(self) -> None:
        """Drop all keys and values, and release their memory."""
        for storage in self._storages:
            storage.buffers, storage.capacity = (), 0


@dataclass
class Prefix:
    """The prefix of one video's prompts, with its keys and values; `LanguageModel.prefill` fills and reuses it.

    Attributes:
        before: Token ids of the text before the video.
        tokens: The visual part of the prompt.
        storage: The keys and values of all videos whose questions are decoded together.
        cache: The row of `storage` that belongs to this prefix.
        reused: Number of visual tokens whose keys and values the last prefill kept from the one before, or copied from
            another prefix.
    """

    before: tuple[int, ...]
    tokens: VisualTokens
    storage: BatchKVCache
    cache: KVCacheView
    reused: int = 0

    @property
    def length(self) -> int:
        """Number of cached tokens."""
        return len(self.before) + len(self.tokens)

    @property
    def end(self) -> int:
        """The position id of the first token after the prefix."""
        return len(self.before) + self.tokens.end

    def count_equal(self, before: tuple[int, ...], tokens: VisualTokens) -> int:
        """Count the leading positions that this prefix has in common with another text and visual part."""
        return len(before) + self.tokens.count_equal_rows(tokens) if before == self.before else 0

    def forget(self) -> None:
        """Empty this prefix, and release the memory of all prefixes in the same storage."""
        self.before, self.tokens, self.reused = (), self.tokens.empty(), 0
        self.cache = self.cache.empty_copy()
        self.storage.clear()


def longest_front(
    prefixes: Sequence[Prefix], before: tuple[int, ...], tokens: VisualTokens
) -> tuple[Prefix | None, int]:
    """Find the prefix that has the most leading visual tokens in common with a new one.

    Args:
        prefixes: The prefixes.
        before: Token ids of the new text before the video.
        tokens: The new visual part.

    Returns:
        The prefix, and the number of positions in common; (None, 0) if no prefix begins with the same visual token.
    """
    filled = [prefix for prefix in prefixes if len(prefix.tokens) and prefix.before == before and len(tokens)]
    if not filled:
        return None, 0
    # usually the prefixes are those of different videos: one comparison of all first tokens rules them out
    first = torch.stack([prefix.tokens.embeddings[0] for prefix in filled])
    equal = (first == tokens.embeddings[0]).all(1).tolist()
    counts = [prefix.count_equal(before, tokens) if same else 0 for prefix, same in zip(filled, equal)]
    longest = max(counts)
    return (filled[counts.index(longest)], longest) if longest > len(before) else (None, 0)


def packed_mask(
    lengths: Tensor, start: int, key_questions: Tensor, query_questions: Tensor, causal: bool = True
) -> Tensor:
    """Make the mask under which each token attends to its prefix, itself and the earlier tokens of its own question.

    Args:
        lengths: (B) Lengths of the prefixes.
        start: Length of the longest prefix; the suffixes of all rows begin there.
        key_questions: (B K) The question at each cache position from `start` on; the last Q are the queries themselves.
        query_questions: (B Q) The question of each query, -1 for padding.
        causal: False lets a query attend to later tokens of its question too.

    Returns:
        bool (B 1 Q start+K), True where a query attends to a position.
    """
    same_question = key_questions[:, None, :] == query_questions[:, :, None]
    q, k = query_questions.shape[1], key_questions.shape[1]
    if causal:
        same_question &= torch.ones(q, k, dtype=torch.bool, device=key_questions.device).tril(k - q)
    own_prefix = torch.arange(start, device=key_questions.device) < lengths[:, None]
    return torch.cat([own_prefix[:, None].expand(-1, q, -1), same_question], dim=2)[:, None]
