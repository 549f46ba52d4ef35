"""Many questions about one or several videos at a time: each prefix is read once, each step says a token for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sfllava.models.kvcache import PrefixCache, Shelf, packed_mask

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext

# Cache positions that questions may take beside their prefixes: 2 GB in half precision for 7B
PACKED_POSITIONS = 4096


@dataclass
class Prefix:
    """A prefilled text and visual prefix; `prefill` makes it another's, computing only what differs."""

    before: tuple[int, ...]
    tokens: Tensor
    shelf: Shelf
    cache: PrefixCache
    reused: int = 0
    """Visual tokens that the last prefill took over from the one before it"""

    @property
    def length(self) -> int:
        return len(self.before) + len(self.tokens)

    def forget(self) -> None:
        """Give the memory of its shelf back."""
        self.before, self.tokens, self.reused = (), self.tokens[:0], 0
        self.cache = self.shelf.row(0)
        self.shelf.clear()


@dataclass
class Lane:
    """A prefix, and the ids of each question behind it."""

    prefix: Prefix
    suffixes: list[list[int]]


class Pack:
    """The questions of all lanes behind their prefixes, which stand on one shelf, a lane for each of its rows.

    Questions are numbered through, lane by lane. Whoever is done with it crops nothing: the prefixes stay as they are.
    """

    def __init__(self, model: LlavaNext, lanes: Sequence[Lane]) -> None:
        self._model = model
        self._start = max(lane.prefix.length for lane in lanes)
        self._cache = lanes[0].prefix.shelf.together(self._start)
        self._lengths = self._tensor([lane.prefix.length for lane in lanes])
        self._lane = [b for b, lane in enumerate(lanes) for _ in lane.suffixes]
        self._next = [lane.prefix.length + len(ids) for lane in lanes for ids in lane.suffixes]
        self._lanes = len(lanes)
        suffixes = [ids for lane in lanes for ids in lane.suffixes]
        rows: list[list[tuple[int, int, int]]] = [[] for _ in lanes]  # (question, token, position)
        ends = []
        for question, ids in enumerate(suffixes):
            row, first = rows[self._lane[question]], self._next[question] - len(ids)
            row += [(question, token, first + i) for i, token in enumerate(ids)]
            ends.append(len(row) - 1)
        self._owners = self._tensor([[] for _ in lanes]).long()
        self.logits = self._forward(rows, list(range(len(suffixes))), ends)
        """(Q V) behind each question"""

    def say(self, said: Sequence[tuple[int, int]]) -> Tensor:
        """(N V) logits behind each of the (question, token), of each question at most one, questions in order."""
        rows: list[list[tuple[int, int, int]]] = [[] for _ in range(self._lanes)]
        ends = []
        for question, token in said:
            row = rows[self._lane[question]]
            ends.append(len(row))
            row.append((question, token, self._next[question]))
            self._next[question] += 1
        return self._forward(rows, [question for question, _ in said], ends)

    def _forward(self, rows: list[list[tuple[int, int, int]]], questions: list[int], ends: list[int]) -> Tensor:
        width = max(map(len, rows))
        # shorter rows are filled up with what belongs to no question, and is seen by none
        full = [row + [(-1, 0, 0)] * (width - len(row)) for row in rows]
        queries, tokens, positions = self._tensor(full).unbind(-1)
        self._owners = torch.cat([self._owners, queries], 1)
        hidden = self._model._forward(
            self._model._embed_ids(tokens),
            past_key_values=self._cache,
            use_cache=True,
            position_ids=positions,
            attention_mask=packed_mask(self._lengths, self._start, self._owners, queries),
        )
        return self._model._logits(hidden[self._tensor([self._lane[q] for q in questions]), self._tensor(ends)])

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self._model.device)


def generate(
    model: LlavaNext, lanes: Sequence[Lane], new: int, ends: set[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Each step's questions that are still being answered, and the token that each says, the ends included."""
    pack = Pack(model, lanes)
    live, logits = list(range(len(pack.logits))), pack.logits
    for step in range(new):
        following = logits.argmax(-1).tolist()
        yield live, following
        going = [(question, token) for question, token in zip(live, following) if token not in ends]
        if not going or step + 1 == new:
            return
        live, logits = [question for question, _ in going], pack.say(going)


def parts(suffixes: Sequence[list[int]], new: int, room: int, most: int) -> list[list[int]]:
    """Positions in `suffixes`, in groups of at most `most` that take at most `room` of the cache, or are alone."""
    out: list[list[int]] = []
    used = 0
    for i, ids in enumerate(suffixes):
        need = len(ids) + new
        if not out or used + need > room or len(out[-1]) == most:
            out.append([])
            used = 0
        out[-1].append(i)
        used += need
    return out
