"""Answers to many questions that share prefixes: which of them may share one, and how many are decoded at a time."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from torch import Tensor

from sfllava.models.base import ModelInfo
from sfllava.models.finite import is_finite
from sfllava.models.kv_cache import Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.memory import retry_with_smaller_batch
from sfllava.models.packed_decoding import PACKED_POSITIONS, PackedBatch, PrefixGroup, decode_steps, split_to_fit
from sfllava.models.visual_tokens import VisualTokens
from sfllava.prompts import LETTERS, Prompt, pack_prompt
from sfllava.types import Question

log = logging.getLogger(__name__)
T = TypeVar("T")
Generated = tuple[str, tuple[int, ...], dict[str, float]]
"""Text, token ids, and the probabilities of letters"""
ByNumber = dict[int, T | None]
"""By the number of an item; None where its logits are not finite"""


@dataclass(frozen=True)
class Item:
    """A question of a call.

    Attributes:
        number: Its index among all questions of the call.
        video: The index of its video.
        before: Token ids of the text before the video.
        after: Token ids of the text after the video.
    """

    number: int
    video: int
    before: tuple[int, ...]
    after: list[int]


class Answering:
    """Generates answers, or reads letters from logits, for the items of one or several videos.

    Args:
        info: The model's tokenizer and sizes.
        language_model: The language model.
    """

    def __init__(self, info: ModelInfo, language_model: LanguageModel) -> None:
        self._info, self._model = info, language_model
        self._warned = False
        self._max_questions = sys.maxsize
        """Questions of a video that are decoded at a time; reduced once memory has turned out too small"""

    def generate(
        self, items: list[Item], new: int, share_prefix: bool, tokens: list[VisualTokens], prefixes: Sequence[Prefix]
    ) -> ByNumber[Generated]:
        """Generate answers greedily.

        Args:
            items: The questions.
            new: The largest number of new tokens of an answer.
            share_prefix: False answers one question at a time with transformers' `generate`.
            tokens: The visual part of each video's prompt.
            prefixes: One for each video, filled and reused.

        Returns:
            Text and token ids of each item, by its number; None where its logits are not finite.
        """

        def decode(groups: list[PrefixGroup]) -> list[list[int] | None]:
            generated_ids: list[list[int]] = [[] for group in groups for _ in group.suffixes]
            for unfinished, newest in decode_steps(self._model, groups, new, self._model.eos_ids):
                for question, token in zip(unfinished, newest):
                    generated_ids[question].append(token)
            return [None if ids[-1] < 0 else self._model.until_end(ids) for ids in generated_ids]

        shared, alone = self._split(items, tokens, new) if share_prefix else ([], items)
        found = self._share(shared, tokens, prefixes, new, decode)
        for item in alone:
            inputs = self._model.prompt(item.before, tokens[item.video], item.after)
            found[item.number] = self._model.generate(inputs, new)
        return {
            number: None if ids is None else (self._info.tokenizer.decode(ids), tuple(ids), {})
            for number, ids in found.items()
        }

    def letters(
        self,
        items: list[Item],
        questions: list[Question],
        prompt: Prompt | None,
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
    ) -> ByNumber[Generated]:
        """Choose the letter of highest probability from the logits at the end of each prompt, without generation.

        Args:
            items: The questions, as token ids.
            questions: The same questions, with their options.
            prompt: Replaces the prompt of each question's task.
            tokens: The visual part of each video's prompt.
            prefixes: One for each video, filled and reused.

        Returns:
            Letter and probabilities of each item, by its number; None where its logits are not finite.
        """

        def finite(logits: Tensor) -> list[Tensor | None]:
            return [row if known else None for row, known in zip(logits, is_finite(logits).tolist())]

        shared, alone = self._split(items, tokens, 0)
        rows = self._share(shared, tokens, prefixes, 0, lambda groups: finite(PackedBatch(self._model, groups).logits))
        for item in alone:
            self._model.fresh_rope()
            inputs = self._model.prompt(item.before, tokens[item.video], item.after)
            rows[item.number] = finite(self._model.logits(self._model.run(inputs)[:, -1]))[0]
        found: ByNumber[Generated] = {}
        for item, question in zip(items, questions):
            names = LETTERS[: len(question.options)]
            ids = [self._letter_id(question, prompt, item.after, letter) for letter in names]
            row = rows[item.number]
            probabilities = [math.nan] if row is None else row[ids].float().softmax(-1).tolist()
            letters = dict(zip(names, probabilities))
            known = all(map(math.isfinite, probabilities))
            found[item.number] = (max(letters, key=lambda letter: letters[letter]), (), letters) if known else None
        return found

    def _split(self, items: list[Item], tokens: list[VisualTokens], new: int) -> tuple[list[Item], list[Item]]:
        """Split items into those that may share a prefix and those that may not.

        Past the limit the rotation of keys depends on the length of the sequence, so a question that reaches it while
        it is answered cannot share keys with others.
        """
        shared, alone = [], []
        for item in items:
            length = len(item.before) + len(tokens[item.video]) + len(item.after) + new
            (shared if length <= self._model.shared_limit else alone).append(item)
        if alone and not self._warned:
            self._warned = True
            log.warning(
                "prompts past %d positions: a shared prefix is not exact there, so these are prefilled one question "
                "at a time",
                self._model.shared_limit,
            )
        return shared, alone

    def _share(
        self,
        items: list[Item],
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
        new: int,
        decode: Callable[[list[PrefixGroup]], Iterable[T | None]],
    ) -> ByNumber[T]:
        """Run `decode` on all items, as many at a time as the memory holds; None means logits that are not finite.

        Such an item spoils those in its batch, because a key that a mask hides still enters a product. So each item
        without finite logits is decoded once more, alone.
        """
        if not items:
            return {}
        limit = min(len(items), self._max_questions)

        def run_one_video(size: int) -> ByNumber[T]:
            if size < limit:
                prefixes[0].forget()
            return self._share_batches(items, tokens, prefixes, new, decode, size)

        if len(tokens) == 1:
            found, used = retry_with_smaller_batch(run_one_video, limit, "questions")
            self._max_questions = self._max_questions if used == limit else used
        else:  # the caller splits several videos: one video needs less memory than fewer questions of each
            found = self._share_batches(items, tokens, prefixes, new, decode, limit)
        lost = [item for item in items if found[item.number] is None]
        if lost:
            for prefix in prefixes:
                prefix.forget()
        for item in lost if len(items) > 1 else []:
            found |= self._share([item], tokens, prefixes, new, decode)
        return found

    def _share_batches(
        self,
        items: list[Item],
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
        new: int,
        decode: Callable[[list[PrefixGroup]], Iterable[T | None]],
        max_questions: int,
    ) -> ByNumber[T]:
        """Run `decode` with at most `max_questions` of a video at a time."""
        found: ByNumber[T] = {}
        for by_video in _rounds(items, len(tokens)):
            # 1) split the questions of each video into batches that fit the cache
            room = PACKED_POSITIONS // len(by_video)
            splits = [split_to_fit([item.after for item in own], new, room, max_questions) for own in by_video]
            batches = [
                [[own[i] for i in split[k]] if k < len(split) else [] for own, split in zip(by_video, splits)]
                for k in range(max(map(len, splits)))
            ]
            # 2) prefill each video, with room for its largest batch after the longest prefix
            needed = max(sum(len(item.after) + new for item in own) for batch in batches for own in batch)
            longest = max(len(own[0].before) + len(tokens[video]) for video, own in enumerate(by_video) if own)
            for video, own in enumerate(by_video):
                if own:
                    before, visual = own[0].before, tokens[video]
                    self._model.prefill(before, visual, needed + longest - len(before) - len(visual), prefixes[video])
            # 3) decode batch by batch
            for batch in batches:
                groups = [PrefixGroup(prefix, [item.after for item in own]) for prefix, own in zip(prefixes, batch)]
                found |= zip([item.number for own in batch for item in own], decode(groups))
        return found

    def _letter_id(self, question: Question, prompt: Prompt | None, after: list[int], letter: str) -> int:
        """Return the token id of a letter that follows the prompt."""
        text = (prompt or pack_prompt(self._info.family, question.task)).pieces(question)[1]
        longer = self._info.tokenizer.encode(text + letter)
        if len(longer) > len(after) and longer[: len(after)] == after:
            return longer[len(after)]
        # the tokenizer would merge the letter with the end of the prompt: take the token of the letter alone
        alone = self._info.tokenizer.token_id(letter)
        return self._info.tokenizer.encode(letter)[-1] if alone is None else alone


def _rounds(items: list[Item], videos: int) -> Iterator[list[list[Item]]]:
    """Yield, for each video, items with the same text before the video; each round takes another such text."""
    by_text: list[dict[tuple[int, ...], list[Item]]] = [{} for _ in range(videos)]
    for item in items:
        by_text[item.video].setdefault(item.before, []).append(item)
    for by_video in zip_longest(*(groups.values() for groups in by_text), fillvalue=[]):
        yield list(by_video)
