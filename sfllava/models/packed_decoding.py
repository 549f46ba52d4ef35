"""Greedy decoding of many questions about one or several videos at once.

A prompt has two parts: a prefix, which all questions about a video share (the text before the video, and the visual
tokens), and a suffix of its own (the text after the video, which contains the question). The algorithm:

1. Prefill. Compute the keys and values of each video's prefix once. Each video is one row of a batched KV cache
   (`LanguageModel.prefill`).
2. Pack. Concatenate the suffixes of each video into one row of tokens. Each suffix keeps the position ids that it has
   on its own, and the mask shows each token only the prefix and the earlier tokens of its own question (`packed_mask`).
3. Run one forward over all rows. The logits at the end of each suffix give the first new token of each question
   (`PackedBatch`).
4. Decode. Drop the questions that have ended. Feed the newest token of each remaining question, again packed and
   masked: one forward per step for all questions and videos (`PackedBatch.decode_step`).
5. Repeat step 4 until no question remains or the answers have their largest length (`decode_steps`). With
   `LanguageModel.graphs`, replay a version of step 4 with fixed shapes as a CUDA graph (`StaticDecodeLoop`).

The cache for two videos, the first with questions 0 to 2, the second with questions 3 and 4; dots are padding:

    | prefix of video 0 ........ | suffixes of 0, 1, 2 | tokens of 0, 1, 2 | tokens of 0, 2 | ...
    | longer prefix of video 1   | suffixes of 3, 4 .. | tokens of 3, 4 .. | tokens of 3, 4 | ...

In float32 the token ids are the same as with one generation per question; in half precision, rounding may change some.
No key or value of a prefix is copied or computed twice.
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

# Cache positions for suffixes and new tokens, in addition to the prefixes: 2 GB in half precision for a 7B model
PACKED_POSITIONS = 4096
# With fewer new tokens than this, a CUDA graph saves less time than its capture takes
GRAPH_TOKENS = 12
T = TypeVar("T")
PackedToken = tuple[int, int, int]
"""Question, token id, position id"""
_PADDING: PackedToken = (-1, 0, 0)


@dataclass
class PrefixGroup:
    """The prefix of one video, and the token ids of the suffix of each question about it."""

    prefix: Prefix
    suffixes: list[list[int]]


class PackedBatch:
    """The questions of several videos, decoded together after their prefixes (steps 2 to 4).

    Each group is one row of the batch. Questions are numbered across groups, in order. The prefixes do not change, so
    that nothing has to be cropped after use.

    Args:
        model: The language model.
        groups: The B groups. All their prefixes must come from one call of `LanguageModel.new_prefixes`.

    Attributes:
        logits: (N V) The logits of the first new token of each of the N questions.
        key_questions: (B K) The question at each of the K cache positions from `start` on, -1 for padding.
    """

    def __init__(self, model: LanguageModel, groups: Sequence[PrefixGroup]) -> None:
        self.model = model
        # 1) in the cache, the suffixes of all groups begin at the end of the longest prefix
        self.start = max(group.prefix.length for group in groups)
        self.cache = groups[0].prefix.storage.all_rows(self.start)
        self.lengths = self.tensor([group.prefix.length for group in groups])
        # 2) for each question: the row of its group, and the position id of its first new token
        self.rows = [row for row, group in enumerate(groups) for _ in group.suffixes]
        self.next_positions = [group.prefix.end + len(ids) for group in groups for ids in group.suffixes]
        # 3) concatenate the suffixes of each group; note where each ends in its row
        suffixes = [ids for group in groups for ids in group.suffixes]
        rows: list[list[PackedToken]] = [[] for _ in groups]
        last_columns = []
        for question, ids in enumerate(suffixes):
            row, first = rows[self.rows[question]], self.next_positions[question] - len(ids)
            row += [(question, token, first + i) for i, token in enumerate(ids)]
            last_columns.append(len(row) - 1)
        # 4) one forward over all rows
        self.key_questions = self.tensor([[] for _ in groups]).long()
        self.logits = self._forward(rows, list(range(len(suffixes))), last_columns)

    def decode_step(self, next_tokens: Sequence[tuple[int, int]]) -> Tensor:
        """Run step 4: feed one new token of each unfinished question.

        Args:
            next_tokens: M pairs (question, token id), ordered by question, at most one for each question.

        Returns:
            Logits (M V) of the tokens that follow.
        """
        rows: list[list[PackedToken]] = [[] for _ in self.lengths]
        last_columns = []
        for question, token in next_tokens:
            row = rows[self.rows[question]]
            last_columns.append(len(row))
            row.append((question, token, self.next_positions[question]))
            self.next_positions[question] += 1
        return self._forward(rows, [question for question, _ in next_tokens], last_columns)

    def _forward(self, rows: list[list[PackedToken]], questions: list[int], last_columns: list[int]) -> Tensor:
        """Run one forward over new tokens; return the logits (M V) at the last new token of M questions."""
        query_questions, tokens, positions = self.tensor(pad_rows(rows, _PADDING)).unbind(-1)
        self.key_questions = torch.cat([self.key_questions, query_questions], 1)
        with self.model.static_rope():
            hidden = self.model.forward(
                self.model.embed_ids(tokens),
                cache=self.cache,
                position_ids=positions,
                attention_mask=packed_mask(self.lengths, self.start, self.key_questions, query_questions),
            )
        index = self.tensor([[self.rows[question] for question in questions], last_columns])
        return self.model.logits(hidden[index[0], index[1]])

    def tensor(self, values: Any) -> Tensor:
        """Put nested lists of numbers on the model's device."""
        return torch.tensor(values).to(self.model.device)


class StaticDecodeLoop:
    """Step 4 with fixed shapes and without host synchronization, so that a CUDA graph can replay it.

    The shapes must not change, so questions that have ended are decoded on, and the caller ignores their tokens.

    Args:
        batch: The batch, whose cache the loop takes over.
        tokens: The first new token of each question.
        max_new_tokens: The largest number of new tokens of an answer.

    Attributes:
        tokens: (B Q) The newest token of each question; Q is the largest number of questions in a group.
    """

    def __init__(self, batch: PackedBatch, tokens: list[int], max_new_tokens: int) -> None:
        self._model, self._cache = batch.model, batch.cache
        # 1) one column for each question of a group; smaller groups are padded
        rows: list[list[PackedToken]] = [[] for _ in batch.lengths]
        self._slots = []  # (row, column) of each question in `tokens`
        for question, (row, token) in enumerate(zip(batch.rows, tokens)):
            self._slots.append((row, len(rows[row])))
            rows[row].append((question, token, batch.next_positions[question]))
        query_questions, self.tokens, positions = batch.tensor(pad_rows(rows, _PADDING)).unbind(-1)
        # 2) the cache has its final length from the start; each step writes the next `width` positions
        width, used = query_questions.shape[1], batch.key_questions.shape[1]
        first, length = batch.start + used, batch.start + used + max_new_tokens * width
        write_positions = torch.arange(first, first + width, device=query_questions.device)
        self._state = [self.tokens, positions, write_positions]
        self._cache.fix_shapes(write_positions, length)
        # 3) the mask after the last step; `step` also hides the positions that are not written yet
        key_questions = torch.cat([batch.key_questions, query_questions.repeat(1, max_new_tokens)], 1)
        self._final_mask = packed_mask(batch.lengths, batch.start, key_questions, query_questions, causal=False)
        self._cache_positions, self._width = torch.arange(length, device=write_positions.device), width

    def step(self) -> None:
        """Feed the newest tokens, and replace them in place with the tokens that follow."""
        tokens, positions, write_positions = self._state
        with self._model.static_rope():
            hidden = self._model.forward(
                self._model.embed_ids(tokens.clamp(min=0)),  # -1 where logits were not finite
                cache=self._cache,
                position_ids=positions,
                attention_mask=self._final_mask & (self._cache_positions <= write_positions[:, None]),
            )
        tokens.copy_(greedy(self._model.logits(hidden)))
        positions += 1
        write_positions += self._width

    def newest_ids(self) -> list[int]:
        """Return the newest token of each question; this is the only host synchronization of a step."""
        tokens = self.tokens.tolist()
        return [tokens[row][column] for row, column in self._slots]

    def capture(self) -> torch.cuda.CUDAGraph:
        """Return `step` as a CUDA graph, without advancing the loop."""
        before = [tensor.clone() for tensor in self._state]
        # 1) warm up on another stream: the first run selects kernels and allocates memory, which a capture must not do
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step()
        torch.cuda.current_stream().wait_stream(stream)
        # 2) capture; "thread_local" lets the threads that read decoded videos pin memory at the same time
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.step()
        # 3) undo the warm-up; the first replay overwrites the keys and values that it wrote
        for tensor, value in zip(self._state, before):
            tensor.copy_(value)
        return graph


def decode_steps(
    model: LanguageModel, groups: Sequence[PrefixGroup], max_new_tokens: int, eos_ids: set[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Decode all questions greedily, step by step (steps 2 to 5; the prefixes are prefilled already).

    Args:
        model: The language model.
        groups: Prefixes with their questions, as for `PackedBatch`.
        max_new_tokens: The largest number of new tokens of an answer.
        eos_ids: Token ids that end an answer.

    Yields:
        The numbers of the unfinished questions, and one new token id for each. The id that ends an answer is yielded
        too. An id of -1 means that the logits are not finite; it also ends the answer.
    """
    # steps 2 and 3: one forward over all suffixes gives the first new token of each question
    batch = PackedBatch(model, groups)
    unfinished, tokens = list(range(len(batch.logits))), greedy(batch.logits).tolist()
    replay, loop = None, None
    if model.graphs and max_new_tokens >= GRAPH_TOKENS:
        loop = StaticDecodeLoop(batch, tokens, max_new_tokens)
        replay = loop.capture().replay
    for step in range(max_new_tokens):
        yield unfinished, tokens
        # step 4: drop the questions that have ended
        newest = [(q, token) for q, token in zip(unfinished, tokens) if token >= 0 and token not in eos_ids]
        if not newest or step + 1 == max_new_tokens:
            return
        unfinished = [question for question, _ in newest]
        # step 4: feed the newest token of each remaining question
        if replay and loop:
            replay()
            newest_ids = loop.newest_ids()
            tokens = [newest_ids[question] for question in unfinished]
        else:
            tokens = greedy(batch.decode_step(newest)).tolist()


def pad_rows(rows: list[list[T]], value: T) -> list[list[T]]:
    """Pad all rows to the length of the longest with a value."""
    width = max(map(len, rows))
    return [row + [value] * (width - len(row)) for row in rows]


def split_to_fit(suffixes: Sequence[list[int]], max_new_tokens: int, room: int, max_questions: int) -> list[list[int]]:
    """Split the questions about one video into groups that fit the cache.

    Args:
        suffixes: The token ids of the suffix of each question.
        max_new_tokens: The largest number of new tokens of an answer.
        room: Cache positions that a group may take. A question that needs more gets a group of its own.
        max_questions: The largest number of questions in a group.

    Returns:
        Groups of indices into `suffixes`, in order.
    """
    groups: list[list[int]] = []
    used = 0
    for i, ids in enumerate(suffixes):
        needed = len(ids) + max_new_tokens
        if not groups or used + needed > room or len(groups[-1]) == max_questions:
            groups.append([])
            used = 0
        groups[-1].append(i)
        used += needed
    return groups
