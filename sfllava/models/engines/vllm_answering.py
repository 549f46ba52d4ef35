"""Answers questions with vLLM: each prompt goes there as embeddings, and equal beginnings are computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sfllava.models.base import ContextError, ModelInfo
from sfllava.models.engines.vllm_engine import Reply, VllmEngine
from sfllava.models.items import Generated, Item, Results, letter_ids
from sfllava.models.kv_cache import Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.visual_tokens import VisualTokens
from sfllava.prompts import LETTERS, Prompt
from sfllava.types import Question, SfllavaError

# what a model without decoder layers can do
_EMBEDDINGS = {
    "width", "device", "dtype", "context", "shared_limit", "shared_positions", "eos_ids", "embed", "embed_ids",
    "new_prefixes", "prompt", "until_eos", "network",
}  # fmt: skip


class TextEmbeddings:
    """What remains of a language model here while vLLM runs its layers: the embeddings of its text.

    Args:
        model: The language model without layers.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in _EMBEDDINGS:
            raise SfllavaError(
                f"this needs the layers of the language model ({name}), which run in vLLM: load the model with the "
                "packed engine"
            )
        return getattr(self._model, name)


class VllmAnswering:
    """Generates answers, or chooses letters by their logits, with vLLM.

    Args:
        info: The model's tokenizer and limits.
        model: The language model without layers.
        engine: vLLM.
    """

    def __init__(self, info: ModelInfo, model: LanguageModel, engine: VllmEngine) -> None:
        self._info, self._model, self._engine = info, model, engine

    def generate(
        self,
        items: list[Item],
        max_new_tokens: int,
        share_prefix: bool,
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
    ) -> Results:
        """Generate answers greedily; `share_prefix` must be True, and of `prefixes` only the reused tokens are set.

        Returns:
            As from `Answering.generate`; an error where the answer does not end within the context, although it
            would with the packed engine.
        """
        if not share_prefix:
            raise SfllavaError("share_prefix=False answers with transformers, which needs the packed engine")
        prompts = [self._embeds(item, tokens) for item in items]
        lengths = [min(max_new_tokens, self._info.context - len(prompt)) for prompt in prompts]
        replies = self._engine.answer(prompts, lengths)
        self._count_reused(items, replies, tokens, prefixes)
        found: dict[int, Generated | SfllavaError | None] = {}
        for item, reply, length in zip(items, replies, lengths):
            ids = self._model.until_eos(reply.ids)
            found[item.number] = (self._info.tokenizer.decode(ids), tuple(ids), {}) if reply.finite else None
            if reply.finite and (error := self._past_limit(reply, length, max_new_tokens)):
                found[item.number] = error
        return found

    def letters(
        self,
        items: list[Item],
        questions: list[Question],
        prompt: Prompt | None,
        tokens: list[VisualTokens],
        prefixes: Sequence[Prefix],
    ) -> Results:
        """Choose the most probable letter by the logits at the end of each prompt, as `Answering.letters` does."""
        allowed = [letter_ids(self._info, q, prompt, item.after) for item, q in zip(items, questions)]
        replies = self._engine.choose([self._embeds(item, tokens) for item in items], allowed)
        self._count_reused(items, replies, tokens, prefixes)
        found: dict[int, Generated | SfllavaError | None] = {}
        for item, ids, reply in zip(items, allowed, replies):
            # options whose letters have one token id count as often as they occur, as in a softmax over the options
            values = [reply.probabilities.get(i, 0.0) for i in ids]
            letters = {letter: value / sum(values) for letter, value in zip(LETTERS, values)} if reply.finite else {}
            found[item.number] = (max(letters, key=lambda x: letters[x]), (), letters) if reply.finite else None
        return found

    def stream(self, item: Item, tokens: VisualTokens, max_new_tokens: int, prefix: Prefix | None) -> Iterator[int]:
        """Answer one question; its token ids arrive together, when the answer is complete.

        Yields:
            The token ids; -1 where logits are not finite.
        """
        prompt = self._embeds(item, [tokens])
        length = min(max_new_tokens, self._info.context - len(prompt))
        (reply,) = self._engine.answer([prompt], [length])
        self._count_reused([item], [reply], [tokens], [prefix] if prefix else [])
        yield from reply.ids if reply.finite else [-1]
        if reply.finite and (error := self._past_limit(reply, length, max_new_tokens)):
            raise error

    def _past_limit(self, reply: Reply, length: int, max_new_tokens: int) -> ContextError | None:
        """Return the error of an answer that the packed engine could go on with, and vLLM cannot."""
        larger = (self._info.engine.packed_context or 0) > self._info.context
        if not (reply.cut and length < max_new_tokens and larger):
            return None
        return ContextError(
            f"the answer goes on past position {self._info.context:,}, up to which vLLM is exact: use fewer frames, a "
            "coarser aggregation or the packed engine"
        )

    @torch.inference_mode()
    def _embeds(self, item: Item, tokens: list[VisualTokens]) -> Tensor:
        visual = tokens[item.video]
        if visual.positions is not None or visual.deepstack is not None:
            raise SfllavaError("positions of their own and DeepStack features need the packed engine")
        return self._model.prompt(item.before, visual, item.after).embeds[0]

    @staticmethod
    def _count_reused(
        items: list[Item], replies: list[Reply], tokens: list[VisualTokens], prefixes: Sequence[Prefix]
    ) -> None:
        """Set how many visual tokens of each video an earlier call had computed: those its first question found."""
        first = {item.video: (item, reply) for item, reply in reversed(list(zip(items, replies)))}
        for video, prefix in enumerate(prefixes):
            if video in first:
                item, reply = first[video]
                rows = max(0, min(reply.cached - len(item.before), len(tokens[video])))
                prefix.reused = tokens[video].rows(slice(rows)).count
