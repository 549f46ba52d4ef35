"""A key-value cache that many questions share: written in place, cropped without a copy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class _Layer(DynamicLayer):
    # DynamicLayer concatenates, which copies the whole prefix at every step; this one writes behind it.
    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            shape = (*key_states.shape[:2], 0, key_states.shape[-1])
            self._space = (key_states.new_empty(shape), value_states.new_empty(shape))
            self.keys, self.values = self._space
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._space[0].shape[-2]:
            self._space = tuple(self._grown(space, start, max(end, self.capacity)) for space in self._space)
        for space, new in zip(self._space, (key_states, value_states)):
            space[:, :, start:end] = new
        self.keys, self.values = (space[:, :, :end] for space in self._space)
        return self.keys, self.values

    @staticmethod
    def _grown(space: Tensor, used: int, size: int) -> Tensor:
        out = space.new_empty((*space.shape[:2], size, space.shape[-1]))
        out[:, :, :used] = space[:, :, :used]
        return out


class PrefixCache(DynamicCache):
    """Keys and values of a visual prefix, with room for `capacity` positions before anything is copied."""

    def __init__(self, layers: int, capacity: int) -> None:
        super().__init__()
        self.layers = [_Layer(capacity) for _ in range(layers)]
        self.layer_class_to_replicate = None

    def reserve(self, capacity: int) -> None:
        """Let the next growth make room for `capacity` positions at once."""
        for layer in self.layers:
            layer.capacity = capacity  # type: ignore[attr-defined]

    def crop_to(self, length: int) -> None:
        """Forget all positions from `length` on."""
        if (extra := self.get_seq_length() - length) > 0:
            self.crop(-extra)


def packed_mask(prefix: int, owners: Tensor, queries: Tensor) -> Tensor:
    """(1 1 Q prefix+K) bool: query i sees the prefix, and the earlier keys (and itself) that its question owns.

    owners: (K) the question of each cached position behind the prefix, the queries' own included, last.
    queries: (Q) the question of each query.
    """
    behind = owners[None, :] == queries[:, None]
    behind &= torch.ones_like(behind).tril(owners.numel() - queries.numel())
    return torch.cat([behind.new_ones(queries.numel(), prefix), behind], dim=1)[None, None]
