"""Many questions about one or several videos at a time: each prefix is read once, each step says a token for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sfllava.models.finite import greedy
from sfllava.models.kv_cache import Prefix, packed_mask
from sfllava.models.language_model import LanguageModel

# Cache positions that questions may take beside their prefixes: 2 GB in half precision for 7B
PACKED_POSITIONS = 4096
# New tokens from which a CUDA graph, whose making costs some steps, is worth while
GRAPH_TOKENS = 12
T = TypeVar("T")


@dataclass
class PrefixGroup:
    """A prefix, and the ids of each question behind it."""

    prefix: Prefix
    suffixes: list[list[int]]


class PackedBatch:
    """The questions of all lanes behind their prefixes, which stand on one shelf, a lane for each of its rows.

    Questions are numbered through, lane by lane. Whoever is done with it crops nothing: the prefixes stay as they are.
    """

    def __init__(self, model: LanguageModel, lanes: Sequence[PrefixGroup]) -> None:
        self.model = model
        self.start = max(lane.prefix.length for lane in lanes)
        """The position behind the longest prefix, where the questions' begin"""
        self.cache = lanes[0].prefix.storage.together(self.start)
        self.lengths = self.tensor([lane.prefix.length for lane in lanes])
        self.lane = [b for b, lane in enumerate(lanes) for _ in lane.suffixes]
        self.next = [lane.prefix.length + len(ids) for lane in lanes for ids in lane.suffixes]
        """Of each question the position of its next token"""
        suffixes = [ids for lane in lanes for ids in lane.suffixes]
        rows: list[list[tuple[int, int, int]]] = [[] for _ in lanes]  # (question, token, position)
        ends = []
        for question, ids in enumerate(suffixes):
            row, first = rows[self.lane[question]], self.next[question] - len(ids)
            row += [(question, token, first + i) for i, token in enumerate(ids)]
            ends.append(len(row) - 1)
        self.owners = self.tensor([[] for _ in lanes]).long()
        self.logits = self._forward(rows, list(range(len(suffixes))), ends)
        """(Q V) behind each question"""

    def say(self, said: Sequence[tuple[int, int]]) -> Tensor:
        """(N V) logits behind each of the (question, token), of each question at most one, questions in order."""
        rows: list[list[tuple[int, int, int]]] = [[] for _ in self.lengths]
        ends = []
        for question, token in said:
            row = rows[self.lane[question]]
            ends.append(len(row))
            row.append((question, token, self.next[question]))
            self.next[question] += 1
        return self._forward(rows, [question for question, _ in said], ends)

    def _forward(self, rows: list[list[tuple[int, int, int]]], questions: list[int], ends: list[int]) -> Tensor:
        queries, tokens, positions = self.tensor(pad_rows(rows, (-1, 0, 0))).unbind(-1)
        self.owners = torch.cat([self.owners, queries], 1)
        with self.model.static_rope():
            hidden = self.model.forward(
                self.model.embed_ids(tokens),
                cache=self.cache,
                position_ids=positions,
                attention_mask=packed_mask(self.lengths, self.start, self.owners, queries),
            )
        at = self.tensor([[self.lane[question] for question in questions], ends])
        return self.model.logits(hidden[at[0], at[1]])

    def tensor(self, values: Any) -> Tensor:
        return torch.tensor(values).to(self.model.device)


class StaticDecodeLoop:
    """The steps that follow a pack, in fixed shapes and without a word from the host, so that a GPU can replay them.

    Questions that have ended go on being said, to nobody. tokens: (B Q) what each question says last.
    """

    def __init__(self, pack: PackedBatch, tokens: list[int], new: int) -> None:
        self._model, self._cache = pack.model, pack.cache
        rows: list[list[tuple[int, int, int]]] = [[] for _ in pack.lengths]
        self.slots = []
        for question, (lane, token) in enumerate(zip(pack.lane, tokens)):
            self.slots.append((lane, len(rows[lane])))
            rows[lane].append((question, token, pack.next[question]))
        self._queries, self.tokens, self._positions = pack.tensor(pad_rows(rows, (-1, 0, 0))).unbind(-1)
        width, asked = self._queries.shape[1], pack.owners.shape[1]
        first, length = pack.start + asked, pack.start + asked + new * width
        at = torch.arange(first, first + width, device=self._queries.device)
        self._state = [self.tokens, self._positions, at]
        self._cache.fix(at, length)
        owners = torch.cat([pack.owners, self._queries.repeat(1, new)], 1)
        self._own = packed_mask(pack.lengths, pack.start, owners, self._queries, causal=False)
        self._order, self._width = torch.arange(length, device=at.device), width

    def step(self) -> None:
        """Say the tokens, and put what follows them in their place."""
        tokens, positions, at = self._state
        with self._model.static_rope():
            hidden = self._model.forward(
                self._model.embed_ids(tokens.clamp(min=0)),
                cache=self._cache,
                position_ids=positions,
                attention_mask=self._own & (self._order <= at[:, None]),
            )
        tokens.copy_(greedy(self._model.logits(hidden)))
        positions += 1
        at += self._width

    def said(self) -> list[int]:
        """The last token of each question."""
        tokens = self.tokens.tolist()
        return [tokens[lane][slot] for lane, slot in self.slots]

    def captured(self) -> torch.cuda.CUDAGraph:
        """`step` as a CUDA graph; nothing is said by making it."""
        before = [tensor.clone() for tensor in self._state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # a first run chooses kernels and takes memory, which a capture must not
            self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: the threads that read decoded videos take pinned memory meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.step()
        for tensor, value in zip(self._state, before):
            tensor.copy_(value)
        return graph


def decode_steps(
    model: LanguageModel, lanes: Sequence[PrefixGroup], new: int, ends: set[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Each step's questions that are still being answered, and the token that each says, the ends included.

    A question whose logits are not finite says -1, and ends.
    """
    pack = PackedBatch(model, lanes)
    live, following = list(range(len(pack.logits))), greedy(pack.logits).tolist()
    replay, steps = None, None
    if model.graphs and new >= GRAPH_TOKENS:
        steps = StaticDecodeLoop(pack, following, new)
        replay = steps.captured().replay
    for step in range(new):
        yield live, following
        going = [(question, token) for question, token in zip(live, following) if token >= 0 and token not in ends]
        if not going or step + 1 == new:
            return
        live = [question for question, _ in going]
        if replay and steps:
            replay()
            said = steps.said()
            following = [said[question] for question in live]
        else:
            following = greedy(pack.say(going)).tolist()


def pad_rows(rows: list[list[T]], value: T) -> list[list[T]]:
    """Rows of one length: what fills them up belongs to no question, and is seen by none."""
    width = max(map(len, rows))
    return [row + [value] * (width - len(row)) for row in rows]


def split_to_fit(suffixes: Sequence[list[int]], new: int, room: int, most: int) -> list[list[int]]:
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
