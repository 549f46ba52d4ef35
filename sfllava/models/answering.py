"""Answering many questions behind shared prefixes: which may share one, how many at a time, and letters from logits."""

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
from sfllava.prompts import LETTERS, Prompt, pack_prompt
from sfllava.types import Question

log = logging.getLogger(__name__)
T = TypeVar("T")
Generated = tuple[str, tuple[int, ...], dict[str, float]]
"""Text, token ids, and the probabilities of letters"""
ByNumber = dict[int, T | None]
"""By the number of an item; None where its logits were not finite"""


@dataclass(frozen=True)
class Item:
    """A question of a call: its number, its video's, and the ids before and behind the video."""

    number: int
    video: int
    before: tuple[int, ...]
    after: list[int]


class Answering:
    """Generates answers, or reads letters, for items of one or several videos."""

    def __init__(self, info: ModelInfo, language_model: LanguageModel) -> None:
        self._info, self._model = info, language_model
        self._warned = False
        self._most = sys.maxsize
        """Questions of a video at a time: fewer once the memory has turned out too small"""

    def generate(
        self, items: list[Item], new: int, share_prefix: bool, tokens: list[Tensor], prefixes: Sequence[Prefix]
    ) -> ByNumber[Generated]:
        def together(lanes: list[PrefixGroup]) -> list[list[int] | None]:
            said: list[list[int]] = [[] for lane in lanes for _ in lane.suffixes]
            for live, following in decode_steps(self._model, lanes, new, self._model.eos_ids):
                for question, token in zip(live, following):
                    said[question].append(token)
            return [None if ids[-1] < 0 else self._model.until_end(ids) for ids in said]

        shared, alone = self._split(items, tokens, new) if share_prefix else ([], items)
        found = self._share(shared, tokens, prefixes, new, together)
        for item in alone:
            embeds = self._model.embed(item.before, tokens[item.video], item.after)
            found[item.number] = self._model.generate(embeds, new)
        return {
            number: None if ids is None else (self._info.tokenizer.decode(ids), tuple(ids), {})
            for number, ids in found.items()
        }

    def _split(self, items: list[Item], tokens: list[Tensor], new: int) -> tuple[list[Item], list[Item]]:
        """Those that may share a prefix, and those that may not.

        Up to the limit all questions see the same keys; one that crosses it while it is answered is answered alone,
        since the rotation then depends on the length.
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
        tokens: list[Tensor],
        prefixes: Sequence[Prefix],
        new: int,
        use: Callable[[list[PrefixGroup]], Iterable[T | None]],
    ) -> ByNumber[T]:
        """What `use` makes of each question behind its video's prefix; as many at a time as the memory holds.

        None stands for logits that are not finite. Such a question spoils those beside it, as a key that a mask hides
        still enters a product, so each is asked once more alone.
        """
        if not items:
            return {}
        most = min(len(items), self._most)

        def run_one_video(now: int) -> ByNumber[T]:
            if now < most:
                prefixes[0].forget()
            return self._share_at_once(items, tokens, prefixes, new, use, now)

        if len(tokens) == 1:
            found, used = retry_with_smaller_batch(run_one_video, most, "questions")
            self._most = self._most if used == most else used
        else:  # the caller's to take apart: each video by itself needs less than a smaller group of questions
            found = self._share_at_once(items, tokens, prefixes, new, use, most)
        lost = [item for item in items if found[item.number] is None]
        if lost:
            for prefix in prefixes:
                prefix.forget()
        for item in lost if len(items) > 1 else []:
            found |= self._share([item], tokens, prefixes, new, use)
        return found

    def _share_at_once(
        self,
        items: list[Item],
        tokens: list[Tensor],
        prefixes: Sequence[Prefix],
        new: int,
        use: Callable[[list[PrefixGroup]], Iterable[T | None]],
        most: int,
    ) -> ByNumber[T]:
        """`_share` with at most `most` questions of a video at a time."""
        found: ByNumber[T] = {}
        for turn in _turns(items, len(tokens)):
            cut = [
                split_to_fit([item.after for item in mine], new, PACKED_POSITIONS // len(turn), most) for mine in turn
            ]
            packs = [
                [[mine[i] for i in part[k]] if k < len(part) else [] for mine, part in zip(turn, cut)]
                for k in range(max(map(len, cut)))
            ]
            room = max(sum(len(item.after) + new for item in mine) for pack in packs for mine in pack)
            longest = max(len(mine[0].before) + len(tokens[video]) for video, mine in enumerate(turn) if mine)
            for video, mine in enumerate(turn):
                if mine:
                    before, own = mine[0].before, tokens[video]
                    self._model.prefill(before, own, room + longest - len(before) - len(own), prefixes[video])
            for pack in packs:
                lanes = [PrefixGroup(prefix, [item.after for item in mine]) for prefix, mine in zip(prefixes, pack)]
                found |= zip([item.number for mine in pack for item in mine], use(lanes))
        return found

    def letters(
        self,
        items: list[Item],
        asked: list[Question],
        prompt: Prompt | None,
        tokens: list[Tensor],
        prefixes: Sequence[Prefix],
    ) -> ByNumber[Generated]:
        def finite(logits: Tensor) -> list[Tensor | None]:
            return [row if known else None for row, known in zip(logits, is_finite(logits).tolist())]

        shared, alone = self._split(items, tokens, 0)
        rows = self._share(shared, tokens, prefixes, 0, lambda lanes: finite(PackedBatch(self._model, lanes).logits))
        for item in alone:
            self._model.fresh_rope()
            embeds = self._model.embed(item.before, tokens[item.video], item.after)
            rows[item.number] = finite(self._model.logits(self._model.forward(embeds)[:, -1]))[0]
        found: ByNumber[Generated] = {}
        for item, question in zip(items, asked):
            names = LETTERS[: len(question.options)]
            ids = [self._letter_id(question, prompt, item.after, letter) for letter in names]
            row = rows[item.number]
            shares = [math.nan] if row is None else row[ids].float().softmax(-1).tolist()
            letters = dict(zip(names, shares))
            known = all(map(math.isfinite, shares))
            found[item.number] = (max(letters, key=lambda letter: letters[letter]), (), letters) if known else None
        return found

    def _letter_id(self, question: Question, prompt: Prompt | None, after: list[int], letter: str) -> int:
        text = (prompt or pack_prompt(self._info.family, question.task)).pieces(question)[1]
        longer = self._info.tokenizer.encode(text + letter)
        if len(longer) > len(after) and longer[: len(after)] == after:
            return longer[len(after)]
        # the letter would melt into the prompt's last token: then it is said as the letter alone
        alone = self._info.tokenizer.token_id(letter)
        return self._info.tokenizer.encode(letter)[-1] if alone is None else alone


def _turns(items: list[Item], videos: int) -> Iterator[list[list[Item]]]:
    """By video the items that share one text before it; of a video with several such texts, one in each turn."""
    texts: list[dict[tuple[int, ...], list[Item]]] = [{} for _ in range(videos)]
    for item in items:
        texts[item.video].setdefault(item.before, []).append(item)
    for turn in zip_longest(*(mine.values() for mine in texts), fillvalue=[]):
        yield list(turn)
