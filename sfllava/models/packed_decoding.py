"""Greedy decoding of many questions about one or several videos at a time.

The algorithm, step by step:

1. Prefill the text and the visual tokens of each video once; all its questions share these keys and values
   (`LanguageModel.prefill`).
2. Concatenate the questions of a video as one row of tokens, with their own positions and a mask under which a token
   sees the prefix and its own question only. One forward gives the first new token of each question (`PackedBatch`).
3. In each decode step, feed the newest token of each unfinished question, masked likewise (`decode_steps`).
4. On a GPU, replay that step as a CUDA graph of fixed shapes (`StaticDecodeLoop`).

The token ids are those of one generation per question: no key or value of a prefix is copied or computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sfllava.models.finite import greedy
from sfllava.models.kv_cache import Prefix, packed_mask
from sfllava.models.language_model import LanguageModel

# Cache positions that questions may take in addition to their prefixes: 2 GB in half precision for a 7B model
PACKED_POSITIONS = 4096
# Fewer new tokens than this do not repay the steps that the capture of a CUDA graph costs
GRAPH_TOKENS = 12
T = TypeVar("T")


@dataclass
class PrefixGroup:
    """The prefix of one video, and the token ids of each question that follows it."""

    prefix: Prefix
    suffixes: list[list[int]]


class PackedBatch:
    """The questions of several prefix groups, decoded together after their prefixes.

    Each group is one row of the batch. Questions are numbered across groups, in order. The prefixes keep their length:
    nothing has to be cropped after use.

    Args:
        model: The language model.
        groups: The B groups, of which all prefixes come from one call of `LanguageModel.new_prefixes`.

    Attributes:
        logits: (Q V) The logits of the first new token of each question.
    """

    def __init__(self, model: LanguageModel, groups: Sequence[PrefixGroup]) -> None:
        self.model = model
        # 1) the questions of all groups begin at the end of the longest prefix
        self.start = max(group.prefix.length for group in groups)
        self.cache = groups[0].prefix.storage.together(self.start)
        self.lengths = self.tensor([group.prefix.length for group in groups])
        # 2) for each question: the row of its group, and the position of its next token
        self.rows = [row for row, group in enumerate(groups) for _ in group.suffixes]
        self.next_positions = [group.prefix.end + len(ids) for group in groups for ids in group.suffixes]
        # 3) concatenate the questions of each group; note where each ends
        suffixes = [ids for group in groups for ids in group.suffixes]
        rows: list[list[tuple[int, int, int]]] = [[] for _ in groups]  # (question, token, position)
        ends = []
        for question, ids in enumerate(suffixes):
            row, first = rows[self.rows[question]], self.next_positions[question] - len(ids)
            row += [(question, token, first + i) for i, token in enumerate(ids)]
            ends.append(len(row) - 1)
        # 4) one forward over all of them
        self.owners = self.tensor([[] for _ in groups]).long()  # (B K) the question of each cached position
        self.logits = self._forward(rows, list(range(len(suffixes))), ends)

    def decode_step(self, next_tokens: Sequence[tuple[int, int]]) -> Tensor:
        """Feed one new token to each of some questions.

        Args:
            next_tokens: N pairs (question, token), ordered by question, at most one for each question.

        Returns:
            Logits (N V) of the tokens that follow.
        """
        rows: list[list[tuple[int, int, int]]] = [[] for _ in self.lengths]
        ends = []
        for question, token in next_tokens:
            row = rows[self.rows[question]]
            ends.append(len(row))
            row.append((question, token, self.next_positions[question]))
            self.next_positions[question] += 1
        return self._forward(rows, [question for question, _ in next_tokens], ends)

    def _forward(self, rows: list[list[tuple[int, int, int]]], questions: list[int], ends: list[int]) -> Tensor:
        """Run one forward over new tokens; return the logits at the end of each question."""
        queries, tokens, positions = self.tensor(pad_rows(rows, (-1, 0, 0))).unbind(-1)
        self.owners = torch.cat([self.owners, queries], 1)
        with self.model.static_rope():
            hidden = self.model.forward(
                self.model.embed_ids(tokens),
                cache=self.cache,
                position_ids=positions,
                attention_mask=packed_mask(self.lengths, self.start, self.owners, queries),
            )
        index = self.tensor([[self.rows[question] for question in questions], ends])
        return self.model.logits(hidden[index[0], index[1]])

    def tensor(self, values: Any) -> Tensor:
        """Put nested lists of numbers on the model's device."""
        return torch.tensor(values).to(self.model.device)


class StaticDecodeLoop:
    """Decode steps after a `PackedBatch`, in fixed shapes and without host synchronization, for a CUDA graph.

    Questions that have ended are decoded further, and their tokens ignored: the shapes must not change.

    Args:
        batch: The batch, whose cache the loop takes over.
        tokens: The first new token of each question.
        new: The largest number of new tokens of a question.

    Attributes:
        tokens: (B Q) The newest token of each question; Q is the largest number of questions in a group.
    """

    def __init__(self, batch: PackedBatch, tokens: list[int], new: int) -> None:
        self._model, self._cache = batch.model, batch.cache
        # 1) one column for each question of a group; shorter groups are padded
        rows: list[list[tuple[int, int, int]]] = [[] for _ in batch.lengths]
        self._slots = []
        for question, (row, token) in enumerate(zip(batch.rows, tokens)):
            self._slots.append((row, len(rows[row])))
            rows[row].append((question, token, batch.next_positions[question]))
        self._queries, self.tokens, self._positions = batch.tensor(pad_rows(rows, (-1, 0, 0))).unbind(-1)
        # 2) the cache shows its final length from the start; each step writes the next `width` positions
        width, used = self._queries.shape[1], batch.owners.shape[1]
        first, length = batch.start + used, batch.start + used + new * width
        write_positions = torch.arange(first, first + width, device=self._queries.device)
        self._state = [self.tokens, self._positions, write_positions]
        self._cache.fix(write_positions, length)
        # 3) the mask of all steps; `step` hides the positions that are not written yet
        owners = torch.cat([batch.owners, self._queries.repeat(1, new)], 1)
        self._own = packed_mask(batch.lengths, batch.start, owners, self._queries, causal=False)
        self._order, self._width = torch.arange(length, device=write_positions.device), width

    def step(self) -> None:
        """Feed the newest tokens, and replace them in place by those that follow."""
        tokens, positions, write_positions = self._state
        with self._model.static_rope():
            hidden = self._model.forward(
                self._model.embed_ids(tokens.clamp(min=0)),
                cache=self._cache,
                position_ids=positions,
                attention_mask=self._own & (self._order <= write_positions[:, None]),
            )
        tokens.copy_(greedy(self._model.logits(hidden)))
        positions += 1
        write_positions += self._width

    def newest_ids(self) -> list[int]:
        """Return the newest token of each question; this is the one synchronization of a step."""
        tokens = self.tokens.tolist()
        return [tokens[row][column] for row, column in self._slots]

    def capture(self) -> torch.cuda.CUDAGraph:
        """Return `step` as a CUDA graph; the loop's state stays as it was."""
        before = [tensor.clone() for tensor in self._state]
        # 1) warm up on another stream: the first run chooses kernels and allocates, which a capture must not do
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step()
        torch.cuda.current_stream().wait_stream(stream)
        # 2) capture; thread_local, because the threads that read decoded videos pin memory meanwhile
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.step()
        # 3) undo the warm-up
        for tensor, value in zip(self._state, before):
            tensor.copy_(value)
        return graph


def decode_steps(
    model: LanguageModel, groups: Sequence[PrefixGroup], new: int, ends: set[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Decode all questions greedily, step by step.

    Args:
        model: The language model.
        groups: Prefixes with their questions, as for `PackedBatch`.
        new: The largest number of new tokens of a question.
        ends: Token ids that end an answer.

    Yields:
        The unfinished questions and the new token of each, the ending one included. A token of -1 means that the
        logits are not finite; it ends the question.
    """
    # 1) one forward over all questions gives their first tokens
    batch = PackedBatch(model, groups)
    unfinished, tokens = list(range(len(batch.logits))), greedy(batch.logits).tolist()
    replay, loop = None, None
    if model.graphs and new >= GRAPH_TOKENS:
        loop = StaticDecodeLoop(batch, tokens, new)
        replay = loop.capture().replay
    for step in range(new):
        yield unfinished, tokens
        # 2) drop the questions that have ended
        newest = [(question, token) for question, token in zip(unfinished, tokens) if token >= 0 and token not in ends]
        if not newest or step + 1 == new:
            return
        unfinished = [question for question, _ in newest]
        # 3) feed the newest token of each of the others
        if replay and loop:
            replay()
            newest_ids = loop.newest_ids()
            tokens = [newest_ids[question] for question in unfinished]
        else:
            tokens = greedy(batch.decode_step(newest)).tolist()


def pad_rows(rows: list[list[T]], value: T) -> list[list[T]]:
    """Pad rows to one length with a value; padding belongs to no question, so no token attends to it."""
    width = max(map(len, rows))
    return [row + [value] * (width - len(row)) for row in rows]


def split_to_fit(suffixes: Sequence[list[int]], new: int, room: int, max_questions: int) -> list[list[int]]:
    """Split questions into groups that fit the cache.

    Args:
        suffixes: The token ids of each question.
        new: The largest number of new tokens of a question.
        room: Cache positions that a group may take. A question that needs more has a group of its own.
        max_questions: The largest number of questions in a group.

    Returns:
        Groups of indices into `suffixes`, in order.
    """
    groups: list[list[int]] = []
    used = 0
    for i, ids in enumerate(suffixes):
        needed = len(ids) + new
        if not groups or used + needed > room or len(groups[-1]) == max_questions:
            groups.append([])
            used = 0
        groups[-1].append(i)
        used += needed
    return groups
