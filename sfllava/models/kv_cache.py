"""Keys and values of one or several prompts: written in place, cropped without a copy, read together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class _LayerStorage:
    """One layer's keys and values, (rows H capacity d) each; zeros where nothing was written yet."""

    def __init__(self, rows: int) -> None:
        self.rows, self.capacity = rows, 0
        self.spaces: tuple[Tensor, ...] = ()

    def grow(self, like: tuple[Tensor, ...], end: int) -> None:
        """Have room for `end` positions: what is there is copied only where it has grown too small."""
        if self.spaces and end <= self.spaces[0].shape[2]:
            return
        old, size = self.spaces, max(end, self.capacity)
        # zeros: a position that a mask hides still enters a product, and 0 x NaN is NaN
        self.spaces = tuple(new.new_zeros((self.rows, new.shape[1], size, new.shape[3])) for new in like)
        for space, before in zip(self.spaces, old):
            space[:, :, : before.shape[2]] = before


class _Layer(DynamicLayer):
    # DynamicLayer concatenates, which copies the whole prefix at every step; this one writes behind it.
    def __init__(self, room: _LayerStorage, rows: slice, length: int) -> None:
        super().__init__()
        self.room, self.rows, self.length = room, rows, length
        self.at: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start = self.length
        end = start if self.at is not None else start + key_states.shape[-2]
        self.room.grow((key_states, value_states), end)
        for space, new in zip(self.room.spaces, (key_states, value_states)):
            if self.at is None:
                space[self.rows, :, start:end] = new
            else:
                space[self.rows].index_copy_(2, self.at, new)
        self.keys, self.values = (space[self.rows, :, :end] for space in self.room.spaces)
        self.length, self.is_initialized = end, True
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length


class PrefixCache(DynamicCache):
    """A view of a `BatchKVCache`: one of its prompts, or all of them from one position on."""

    def __init__(self, rooms: list[_LayerStorage], rows: slice, length: int = 0) -> None:
        super().__init__()
        self.layers = [_Layer(room, rows, length) for room in rooms]
        self.layer_class_to_replicate = None

    def fix(self, at: Tensor, length: int) -> None:
        """From now on write at the positions `at` (Q), which may change in place, and show `length` positions."""
        for layer in self.layers:
            layer.at, layer.length = at, length  # type: ignore[attr-defined]

    def emptied(self) -> PrefixCache:
        """The same view, empty: it holds on to no memory of this one."""
        layers: list[Any] = self.layers
        return PrefixCache([layer.room for layer in layers], layers[0].rows)

    def crop_to(self, length: int) -> None:
        """Forget all positions from `length` on."""
        for layer in self.layers:
            layer.length = min(layer.length, length)  # type: ignore[attr-defined]


class BatchKVCache:
    """The keys and values of `rows` prompts side by side, each filled by itself and all read together."""

    def __init__(self, layers: int, rows: int = 1) -> None:
        self.rows = rows
        self._rooms = [_LayerStorage(rows) for _ in range(layers)]

    def row(self, i: int) -> PrefixCache:
        """The cache of prompt i, empty."""
        return PrefixCache(self._rooms, slice(i, i + 1))

    def together(self, length: int) -> PrefixCache:
        """The cache of all prompts, which goes on at position `length`."""
        return PrefixCache(self._rooms, slice(None), length)

    def reserve(self, capacity: int) -> None:
        """Let the next growth make room for `capacity` positions at once."""
        for room in self._rooms:
            room.capacity = capacity

    def clear(self) -> None:
        """Give the memory back; what was cached is lost."""
        for room in self._rooms:
            room.spaces, room.capacity = (), 0


@dataclass
class Prefix:
    """A text and visual prefix whose keys and values are computed; `LanguageModel.prefill` reuses it for the next."""

    before: tuple[int, ...]
    tokens: Tensor
    storage: BatchKVCache
    cache: PrefixCache
    reused: int = 0
    """Visual tokens that the last prefill reused from the one before it"""

    @property
    def length(self) -> int:
        return len(self.before) + len(self.tokens)

    def forget(self) -> None:
        """Give its memory back, and that of all prefixes in the same storage."""
        self.before, self.tokens, self.reused = (), self.tokens[:0], 0
        self.cache = self.cache.emptied()
        self.storage.clear()


def packed_mask(lengths: Tensor, start: int, owners: Tensor, queries: Tensor, causal: bool = True) -> Tensor:
    """(B 1 Q start+K) bool: a query sees its prompt's prefix, and the earlier keys (and itself) that its question owns.

    lengths: (B) of the prefixes, which `start` positions hold. owners: (B K) the question of each position behind
    them, the queries' own included, last. queries: (B Q) the question of each query; -1 where there is none.
    causal=False: later keys too.
    """
    behind = owners[:, None, :] == queries[:, :, None]
    n, k = queries.shape[1], owners.shape[1]
    if causal:
        behind &= torch.ones(n, k, dtype=torch.bool, device=owners.device).tril(k - n)
    prefix = torch.arange(start, device=owners.device) < lengths[:, None]
    return torch.cat([prefix[:, None].expand(-1, n, -1), behind], dim=2)[:, None]
