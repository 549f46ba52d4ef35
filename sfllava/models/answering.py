"""Answer many questions: choose which may share a prefix, and how many are decoded at once.

`packed_decoding` explains what a prefix and a suffix are, and decodes.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from torch import Tensor

from sfllava.models.base import ModelInfo
from sfllava.models.finite import is_finite
from sfllava.models.items import Generated, Item, letter_ids
from sfllava.models.kv_cache import Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.memory import retry_with_smaller_batch
from sfllava.models.packed_decoding import PACKED_POSITIONS, PackedBatch, PrefixGroup, decode_steps, split_to_fit
from sfllava.models.visual_tokens import VisualTokens
from sfllava.prompts import LETTERS, Prompt
from sfllava.types import Question

log = logging.getLogger(__name__)
T = TypeVar("T")
ByNumber = dict[int, T | None]
"""The result of each item, by its number; None where its logits are not finite"""


class Answering:
    """Generates answers, or chooses letters by their logits, for questions about one or several videos.

    Args:
        info: The model's tokenizer and limits.
        language_model: The language model.
    """

    def __init__(self, info: ModelInfo, language_model: LanguageModel) -> None:
        self._info, self._model = info, language_model
        self._warned = False
        self._max_questions = sys.maxsize
        """The largest number of questions about one video to decode at once; reduced when memory runs out"""

    def generate(
        self,
        items: list[Item],
        max_new_tokens: int,
        share_prefix: bool,
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
    ) -> ByNumber[Generated]:
        """Generate answers greedily.

        Args:
            items: The questions.
            max_new_tokens: The largest number of new tokens of an answer.
            share_prefix: False answers one question at a time with transformers' `generate`.
            tokens: The visual part of each video's prompt.
            prefixes: One for each video, filled and reused.

        Returns:
            Text and token ids of each item.
        """

        def decode(groups: list[PrefixGroup]) -> list[list[int] | None]:
            generated_ids: list[list[int]] = [[] for group in groups for _ in group.suffixes]
            for unfinished, newest in decode_steps(self._model, groups, max_new_tokens, self._model.eos_ids):
                for question, token in zip(unfinished, newest):
                    generated_ids[question].append(token)
            return [None if ids[-1] < 0 else self._model.until_eos(ids) for ids in generated_ids]

        shared, separate = self._split(items, tokens, max_new_tokens) if share_prefix else ([], items)
        answers = self._run_shared(shared, tokens, prefixes, max_new_tokens, decode)
        for item in separate:
            inputs = self._model.prompt(item.before, tokens[item.video], item.after)
            answers[item.number] = self._model.generate(inputs, max_new_tokens)
        return {
            number: None if ids is None else (self._info.tokenizer.decode(ids), tuple(ids), {})
            for number, ids in answers.items()
        }

    def letters(
        self,
        items: list[Item],
        questions: list[Question],
        prompt: Prompt | None,
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
    ) -> ByNumber[Generated]:
        """Choose the most probable letter by the logits at the end of each prompt, without generation.

        Args:
            items: The questions, as token ids.
            questions: The same questions, with their options.
            prompt: Replaces the prompt of each question's task.
            tokens: The visual part of each video's prompt.
            prefixes: One for each video, filled and reused.

        Returns:
            The letter of each item, no token ids, and the probability of each letter among the options.
        """

        def finite_or_none(logits: Tensor) -> list[Tensor | None]:
            return [row if finite else None for row, finite in zip(logits, is_finite(logits).tolist())]

        def last_logits(groups: list[PrefixGroup]) -> list[Tensor | None]:
            return finite_or_none(PackedBatch(self._model, groups).logits)

        shared, separate = self._split(items, tokens, 0)
        logits = self._run_shared(shared, tokens, prefixes, 0, last_logits)
        for item in separate:
            self._model.reset_rope()
            inputs = self._model.prompt(item.before, tokens[item.video], item.after)
            logits[item.number] = finite_or_none(self._model.logits(self._model.run(inputs)[:, -1]))[0]
        answers: ByNumber[Generated] = {}
        for item, question in zip(items, questions):
            names = LETTERS[: len(question.options)]
            ids = letter_ids(self._info, question, prompt, item.after)
            row = logits[item.number]
            probabilities = [math.nan] if row is None else row[ids].float().softmax(-1).tolist()
            letters = dict(zip(names, probabilities))
            finite = all(map(math.isfinite, probabilities))
            answers[item.number] = (max(letters, key=lambda letter: letters[letter]), (), letters) if finite else None
        return answers

    def stream(self, item: Item, tokens: VisualTokens, max_new_tokens: int, prefix: Prefix | None) -> Iterator[int]:
        """Answer one question greedily, token by token.

        Args:
            item: The question.
            tokens: The visual part of the prompt.
            max_new_tokens: The largest number of new tokens.
            prefix: Filled and reused if given.

        Returns:
            The token ids, including the one that ends the answer; -1 where logits are not finite.
        """
        length = len(item.before) + len(tokens) + len(item.after)
        if length + max_new_tokens <= self._model.shared_limit:
            shared = self._model.prefill(item.before, tokens, len(item.after) + max_new_tokens, prefix)
            groups = [PrefixGroup(shared, [item.after])]
            return (newest[0] for _, newest in decode_steps(self._model, groups, max_new_tokens, self._model.eos_ids))
        inputs = self._model.prompt(item.before, tokens, item.after)
        return self._model.stream(inputs, min(max_new_tokens, self._info.context - length))

    def _split(
        self, items: list[Item], tokens: list[VisualTokens], max_new_tokens: int
    ) -> tuple[list[Item], list[Item]]:
        """Split items into those that may share a prefix and those that must be answered separately.

        An item that could pass the limit while it is answered must be separate; `sharing_limits` says why.
        """
        shared, separate = [], []
        for item in items:
            length = len(item.before) + len(tokens[item.video]) + len(item.after) + max_new_tokens
            (shared if length <= self._model.shared_limit else separate).append(item)
        if separate and not self._warned:
            self._warned = True
            log.warning(
                "past %d positions sharing a prefix is not exact: prompts that can get there with their answers are "
                "prefilled and answered one question at a time",
                self._model.shared_limit,
            )
        return shared, separate

    def _run_shared(
        self,
        items: list[Item],
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
        max_new_tokens: int,
        decode: Callable[[list[PrefixGroup]], Iterable[T | None]],
    ) -> ByNumber[T]:
        """Run `decode` on all items, as many at once as fit the memory; None means that logits are not finite.

        One such item spoils its whole batch, because a masked value still enters a product, and 0 x NaN is NaN. So each
        item without finite logits is decoded once more on its own.
        """
        if not items:
            return {}
        limit = min(len(items), self._max_questions)

        def run_one_video(size: int) -> ByNumber[T]:
            if size < limit:
                prefixes[0].forget()
            return self._run_batches(items, tokens, prefixes, max_new_tokens, decode, size)

        if len(tokens) == 1:
            results, used = retry_with_smaller_batch(run_one_video, limit, "questions")
            self._max_questions = self._max_questions if used == limit else used
        else:  # no retry here: to save memory, the caller first answers fewer videos at once
            results = self._run_batches(items, tokens, prefixes, max_new_tokens, decode, limit)
        spoiled = [item for item in items if results[item.number] is None]
        if spoiled:
            for prefix in prefixes:
                prefix.forget()
        for item in spoiled if len(items) > 1 else []:
            results |= self._run_shared([item], tokens, prefixes, max_new_tokens, decode)
        return results

    def _run_batches(
        self,
        items: list[Item],
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
        max_new_tokens: int,
        decode: Callable[[list[PrefixGroup]], Iterable[T | None]],
        max_questions: int,
    ) -> ByNumber[T]:
        """Run `decode` on at most `max_questions` questions about each video at once."""
        results: ByNumber[T] = {}
        for by_video in _group_by_prefix(items, len(tokens)):
            # 1) split the questions about each video into batches that fit the cache
            room = PACKED_POSITIONS // len(by_video)
            splits = [
                split_to_fit([item.after for item in group], max_new_tokens, room, max_questions) for group in by_video
            ]
            batches = [
                [[group[i] for i in split[k]] if k < len(split) else [] for group, split in zip(by_video, splits)]
                for k in range(max(map(len, splits)))
            ]
            # 2) prefill each video; its largest batch will need room from the end of the longest prefix on
            needed = max(
                sum(len(item.after) + max_new_tokens for item in group) for batch in batches for group in batch
            )
            longest = max(len(group[0].before) + len(tokens[video]) for video, group in enumerate(by_video) if group)
            for video, group in enumerate(by_video):
                if group:
                    before, visual = group[0].before, tokens[video]
                    room = needed + longest - len(before) - len(visual)
                    self._model.prefill(before, visual, room, prefixes[video], prefixes)
            # 3) decode batch by batch
            for batch in batches:
                groups = [PrefixGroup(prefix, [item.after for item in group]) for prefix, group in zip(prefixes, batch)]
                results |= zip([item.number for group in batch for item in group], decode(groups))
        return results


def _group_by_prefix(items: list[Item], videos: int) -> Iterator[list[list[Item]]]:
    """Yield lists with one group of items per video, in which all items have the same text before the video.

    Usually a single list has all items; a video whose questions have several such texts takes several lists.
    """
    by_text: list[dict[tuple[int, ...], list[Item]]] = [{} for _ in range(videos)]
    for item in items:
        by_text[item.video].setdefault(item.before, []).append(item)
    for by_video in zip_longest(*(groups.values() for groups in by_text), fillvalue=[]):
        yield list(by_video)
