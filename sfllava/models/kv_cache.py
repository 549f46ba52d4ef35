"""A KV cache for one or several prompts: written in place, cropped without a copy, read as one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from sfllava.models.visual_tokens import VisualTokens


class _LayerStorage:
    """The keys and values of one layer, (rows H capacity d) each; zeros where nothing was written yet."""

    def __init__(self, rows: int) -> None:
        self.rows, self.capacity = rows, 0
        self.buffers: tuple[Tensor, ...] = ()

    def grow(self, like: tuple[Tensor, ...], end: int) -> None:
        """Make room for `end` positions; the content is copied only where the buffers are too small."""
        if self.buffers and end <= self.buffers[0].shape[2]:
            return
        old, size = self.buffers, max(end, self.capacity)
        # zeros: a position that a mask hides still enters a product, and 0 x NaN is NaN
        self.buffers = tuple(new.new_zeros((self.rows, new.shape[1], size, new.shape[3])) for new in like)
        for buffer, before in zip(self.buffers, old):
            buffer[:, :, : before.shape[2]] = before


class _Layer(DynamicLayer):
    # DynamicLayer concatenates, which copies the whole prefix in every step; this class writes in place
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


class PrefixCache(DynamicCache):
    """A view of a `BatchKVCache`: one of its prompts, or all of them from one position on.

    Args:
        storages: The keys and values of each layer.
        rows: The prompts that the view shows.
        length: The position at which the view goes on.
    """

    def __init__(self, storages: list[_LayerStorage], rows: slice, length: int = 0) -> None:
        super().__init__()
        self.layers = [_Layer(storage, rows, length) for storage in storages]
        self.layer_class_to_replicate = None

    def fix(self, write_positions: Tensor, length: int) -> None:
        """Give all later forwards the same shapes.

        Args:
            write_positions: (Q) Where new keys and values are written; the caller changes it in place.
            length: Number of positions that attention sees from now on.
        """
        for layer in self.layers:
            layer.write_positions, layer.length = write_positions, length  # type: ignore[attr-defined]

    def emptied(self) -> PrefixCache:
        """Return the same view, empty; it does not keep the memory of this one."""
        layers: list[Any] = self.layers
        return PrefixCache([layer.storage for layer in layers], layers[0].rows)

    def crop_to(self, length: int) -> None:
        """Drop all positions from `length` on."""
        for layer in self.layers:
            layer.length = min(layer.length, length)  # type: ignore[attr-defined]


class BatchKVCache:
    """The keys and values of a batch of prompts: each prompt is filled on its own, and all are read together.

    Args:
        layers: Number of decoder layers.
        rows: Number of prompts.
    """

    def __init__(self, layers: int, rows: int = 1) -> None:
        self.rows = rows
        self._storages = [_LayerStorage(rows) for _ in range(layers)]

    def row(self, i: int) -> PrefixCache:
        """Return the cache of prompt i, empty."""
        return PrefixCache(self._storages, slice(i, i + 1))

    def together(self, length: int) -> PrefixCache:
        """Return the cache of all prompts, which goes on at position `length`."""
        return PrefixCache(self._storages, slice(None), length)

    def reserve(self, capacity: int) -> None:
        """Let the next allocation have room for `capacity` positions."""
        for storage in self._storages:
            storage.capacity = capacity

    def clear(self) -> None:
        """Release the memory, and with it all that was cached."""
        for storage in self._storages:
            storage.buffers, storage.capacity = (), 0


@dataclass
class Prefix:
    """A prefix of text and visual tokens with its keys and values; `LanguageModel.prefill` fills and reuses it.

    Attributes:
        before: Token ids of the text before the video.
        tokens: The N rows of the visual part.
        storage: The keys and values of all videos whose questions are decoded together.
        cache: The part of `storage` that belongs to this prefix.
        reused: Number of visual tokens that the last prefill took over from the one before.
    """

    before: tuple[int, ...]
    tokens: VisualTokens
    storage: BatchKVCache
    cache: PrefixCache
    reused: int = 0

    @property
    def length(self) -> int:
        """Number of cached tokens."""
        return len(self.before) + len(self.tokens)

    @property
    def end(self) -> int:
        """The position of the first token after the prefix."""
        return len(self.before) + self.tokens.end

    def forget(self) -> None:
        """Release its memory, and that of all prefixes in the same storage."""
        self.before, self.tokens, self.reused = (), self.tokens.none(), 0
        self.cache = self.cache.emptied()
        self.storage.clear()


def packed_mask(lengths: Tensor, start: int, owners: Tensor, queries: Tensor, causal: bool = True) -> Tensor:
    """Make the attention mask under which a query sees its prefix, and the earlier tokens of its own question.

    Args:
        lengths: (B) Lengths of the prefixes.
        start: Number of cache positions that hold the prefixes.
        owners: (B K) The question of each later position; the last Q are the queries themselves.
        queries: (B Q) The question of each query, -1 for padding.
        causal: False lets a query see later tokens of its question too.

    Returns:
        bool (B 1 Q start+K), True where a query sees a position.
    """
    own = owners[:, None, :] == queries[:, :, None]
    n, k = queries.shape[1], owners.shape[1]
    if causal:
        own &= torch.ones(n, k, dtype=torch.bool, device=owners.device).tril(k - n)
    prefix = torch.arange(start, device=owners.device) < lengths[:, None]
    return torch.cat([prefix[:, None].expand(-1, n, -1), own], dim=2)[:, None]
