"""The questions of a call to `answer_batch` as token ids, and what answers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sfllava.models.base import ModelInfo
from sfllava.models.kv_cache import Prefix
from sfllava.models.visual_tokens import VisualTokens
from sfllava.prompts import LETTERS, Prompt, pack_prompt
from sfllava.types import Question, SfllavaError

Generated = tuple[str, tuple[int, ...], dict[str, float]]
"""Text, token ids, and the probability of each letter"""
Results = Mapping[int, Generated | SfllavaError | None]
"""The answer of each item, by its number: None where logits are not finite, an error where it has another reason"""


@dataclass(frozen=True)
class Item:
    """One question of a call to `answer_batch`.

    Attributes:
        number: Its index among all questions of the call.
        video: The index of its video.
        before: Token ids of the text before the video.
        after: Token ids of the text after the video (the suffix).
    """

    number: int
    video: int
    before: tuple[int, ...]
    after: list[int]


class AnswersItems(Protocol):
    """What answers the items of a call: `Answering`, or an engine in `models.engines`."""

    def generate(
        self,
        items: list[Item],
        max_new_tokens: int,
        share_prefix: bool,
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
    ) -> Results:
        """Generate answers greedily; see `Answering.generate`."""
        ...

    def letters(
        self,
        items: list[Item],
        questions: list[Question],
        prompt: Prompt | None,
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
    ) -> Results:
        """Choose letters by their logits; see `Answering.letters`."""
        ...

    def stream(self, item: Item, tokens: VisualTokens, max_new_tokens: int, prefix: Prefix | None) -> Iterator[int]:
        """Yield the token ids of one answer; see `Answering.stream`."""
        ...


def letter_ids(info: ModelInfo, question: Question, prompt: Prompt | None, after: list[int]) -> list[int]:
    """Return the token id of the letter of each option, directly after the prompt.

    Args:
        info: The model's tokenizer and prompt templates.
        question: The question, with its options.
        prompt: Replaces the prompt of the question's task.
        after: Token ids of the text after the video.
    """
    text, found = (prompt or pack_prompt(info.family, question.task)).pieces(question)[1], []
    for letter in LETTERS[: len(question.options)]:
        longer = info.tokenizer.encode(text + letter)
        if len(longer) > len(after) and longer[: len(after)] == after:
            found.append(longer[len(after)])
            continue
        # the tokenizer merges the letter with the end of the prompt: take the token of the letter on its own
        letter_id = info.tokenizer.token_id(letter)
        found.append(info.tokenizer.encode(letter)[-1] if letter_id is None else letter_id)
    return found
