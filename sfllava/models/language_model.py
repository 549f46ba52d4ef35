"""The causal language model of a video LLM: embeddings, forward, logits, prefill, and rotary position embedding (RoPE).

This module works for every model family. `packed_decoding` decodes the answers to many questions at once, `kv_cache`
holds the keys and values, and `replay` computes the log-likelihood and the attention of a given answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from sfllava.models.finite import FiniteLogitsWatch, greedy
from sfllava.models.kv_cache import BatchKVCache, KVCacheView, Prefix, longest_front
from sfllava.models.linear import use_few_rows
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.visual_tokens import ModelInputs, VisualTokens

_END_OF_TURN = ("<|im_end|>", "<|eot_id|>")


class LanguageModel:
    """The decoder and the output layer of a loaded network.

    Args:
        network: A transformers model for generation, with `lm_head`, and the decoder at `model.language_model`.
        tokenizer: Its tokenizer, which knows the ids of placeholders and of the end of an answer.
        context: The largest number of positions of a prompt with its answer.
        unused_ids: Further token ids that are never generated.

    Attributes:
        layers: Number of decoder layers.
        width: Size D of the hidden states.
        eos_ids: Token ids that end an answer.
        suppressed_ids: (S) Token ids that are never generated: `unused_ids`, placeholders, and vocabulary padding.
        shared_positions: The largest number of positions for which sharing a prefix is exact, None without a limit; see
            `sharing_limits`.
        graphs: Whether decoding replays a CUDA graph: one launch per token instead of hundreds, on one GPU only.
    """

    def __init__(self, network: Any, tokenizer: Tokenizer, context: int, unused_ids: Sequence[int] = ()) -> None:
        self.network: Any = network
        self._decoder, text = network.model.language_model, network.config.get_text_config()
        self.layers, self.width, self.context = text.num_hidden_layers, text.hidden_size, context
        use_few_rows(self._decoder, network.lm_head)
        eos_ids = {
            tokenizer.eos_id,
            *_as_list(getattr(text, "eos_token_id", None)),
            *_as_list(network.generation_config.eos_token_id),
            *map(tokenizer.token_id, _END_OF_TURN),  # not every checkpoint lists its own
        }
        self.eos_ids = {i for i in eos_ids if i is not None}
        # the rows that pad the vocabulary, and the placeholders of images, were never trained
        suppressed = {*range(tokenizer.vocabulary, text.vocab_size), *tokenizer.placeholders}
        suppressed |= {i for i in unused_ids if i < text.vocab_size}
        suppressed -= self.eos_ids
        self.suppressed_ids = torch.tensor(sorted(suppressed), dtype=torch.long).to(network.lm_head.weight.device)
        network.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=sorted(self.eos_ids),
            pad_token_id=min(self.eos_ids, default=0),
            suppress_tokens=sorted(suppressed) or None,
        )
        limits = sharing_limits(text)
        self.shared_positions: int | None = min(limits) if limits else None
        self.graphs = False
        self._three_axes = hasattr(self._decoder.rotary_emb, "mrope_section")
        # transformers 5.24 renamed the argument
        parameters = inspect.signature(type(self._decoder).forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"

    @property
    def device(self) -> torch.device:
        """The device of the embedding layer, where inputs must be."""
        return self._decoder.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.network.dtype

    @property
    def shared_limit(self) -> int:
        """The largest number of positions of a prompt with its answer for which its prefix may be shared."""
        return min(self.shared_positions or self.context, self.context)

    @property
    def attention_modules(self) -> list[Any]:
        """The attention module of each layer."""
        return [layer.self_attn for layer in self._decoder.layers]

    def embed_ids(self, ids: Tensor) -> Tensor:
        """Embed token ids (...) as (... D)."""
        return self._decoder.embed_tokens(ids)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embed text of L token ids as (L D)."""
        return self.embed_ids(torch.tensor(list(ids), dtype=torch.long).to(self.device))

    def prompt(
        self, before: Sequence[int], tokens: Tensor | VisualTokens | None = None, after: Sequence[int] = ()
    ) -> ModelInputs:
        """Put one prompt together: text, the visual part, text.

        Args:
            before: Token ids of the text before the video.
            tokens: The visual part.
            after: Token ids of the text after the video.
        """
        visual = VisualTokens.of(torch.zeros(0, self.width) if tokens is None else tokens)
        visual = visual.to(self.device, self.dtype)
        embeds = torch.cat([self.embed(before), visual.embeddings, self.embed(after)])[None]
        # 1) position ids; text after the video goes on where the visual part ends
        end = len(before) + visual.end + len(after)
        if visual.positions is None:
            positions = torch.arange(end, device=self.device)[None]
        else:  # text has the same position in time, height and width
            first, last = (
                torch.arange(start, stop, device=self.device)[:, None].expand(-1, 3)
                for start, stop in ((0, len(before)), (len(before) + visual.end, end))
            )
            positions = torch.cat([first, visual.positions + len(before), last]).T[:, None]
        # 2) features that the first layers add at the visual tokens
        if visual.deepstack is None:
            return ModelInputs(embeds, positions, end)
        sides = [visual.deepstack.new_zeros(len(ids), *visual.deepstack.shape[1:]) for ids in (before, after)]
        return ModelInputs(embeds, positions, end, torch.cat([sides[0], visual.deepstack, sides[1]])[None])

    def run(self, inputs: ModelInputs, cache: KVCacheView | None = None) -> Tensor:
        """Run the decoder layers on one prompt, or on the part of it that follows a cache: hidden states (1 L D)."""
        options: dict[str, Any] = {"position_ids": inputs.positions}
        if inputs.deepstack is not None:
            everywhere = torch.ones(inputs.deepstack.shape[:2], dtype=torch.bool, device=self.device)
            sets = list(inputs.deepstack.flatten(0, 1).unbind(1))
            options |= {"visual_pos_masks": everywhere, "deepstack_visual_embeds": sets}
        return self.forward(inputs.embeds, cache=cache, **options)

    def forward(self, embeds: Tensor, cache: KVCacheView | None = None, **options: Any) -> Tensor:
        """Run the decoder layers.

        Args:
            embeds: Embeddings (B L D).
            cache: The cache whose keys and values are read, and to which new ones are written.
            **options: Further arguments for the decoder, such as `position_ids` and `attention_mask`.

        Returns:
            Hidden states (B L D).
        """
        if cache is not None:
            options |= {self._cache_name: cache, "use_cache": True}
        return self._decoder(inputs_embeds=embeds, **options).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute the logits (... V) of hidden states (... D); `suppressed_ids` get -inf."""
        return self.network.lm_head(hidden).index_fill_(-1, self.suppressed_ids, -torch.inf)

    def new_prefixes(self, n: int) -> list[Prefix]:
        """Make empty prefixes, one for each of `n` videos whose questions are decoded together."""
        storage = BatchKVCache(self.layers, n)
        no_tokens = VisualTokens(torch.zeros(0, self.width, device=self.device, dtype=self.dtype))
        return [Prefix((), no_tokens, storage, storage.row(i)) for i in range(n)]

    @torch.inference_mode()
    def prefill(
        self,
        before: Sequence[int],
        tokens: Tensor | VisualTokens,
        room: int = 0,
        prefix: Prefix | None = None,
        others: Sequence[Prefix] = (),
    ) -> Prefix:
        """Compute the keys and values of the prefix that all questions about a video share.

        Args:
            before: Token ids of the text before the video.
            tokens: The visual part.
            room: Number of further positions to allocate, for what will follow the prefix.
            prefix: An earlier prefix to replace. The leading positions that it has in common with the new one are kept.
            others: Further prefixes from the same call of `new_prefixes`. Where one of them has more leading positions
                in common with the new one, such as an equal Fast pathway that comes first, they are copied.

        Returns:
            The prefix; if one was given, the same object.
        """
        self.reset_rope()
        prefix = prefix or self.new_prefixes(1)[0]
        visual, before = VisualTokens.of(tokens).to(self.device, self.dtype), tuple(before)
        # 1) count the leading positions that the earlier prefix, or another one, has in common with the new one
        kept = prefix.count_equal(before, visual)
        other, copied = longest_front(others, before, visual)
        reused = visual.rows(slice(max(0, max(kept, copied) - len(before)))).count
        # a forward needs at least one position: if all are equal, compute the last one again
        length = len(before) + len(visual)
        kept, copied = min(kept, length - 1), min(copied, length - 1)
        # 2) drop the positions after them; until the forward succeeds, the prefix counts as empty
        prefix.before, prefix.tokens, prefix.reused = (), visual.empty(), reused
        prefix.cache.crop_to(kept)
        if other is not None and copied > kept:
            prefix.cache.extend_from(other.cache, copied)
        prefix.storage.reserve(length + room)
        # 3) compute the keys and values of the new positions
        with self.static_rope() if length <= self.shared_limit else nullcontext():
            self.run(self.prompt(before, visual).from_row(max(kept, copied)), prefix.cache)
        prefix.before, prefix.tokens = before, visual
        return prefix

    def generate(self, inputs: ModelInputs, max_new_tokens: int) -> list[int] | None:
        """Answer one prompt greedily, with transformers' `generate` where it goes on at the right positions.

        Where positions have three axes it would not, so those prompts are answered by the plain loop of `stream`.

        Args:
            inputs: The prompt.
            max_new_tokens: The largest number of new tokens.

        Returns:
            The token ids of the answer, without the one that ends it; None if any logits were not finite.
        """
        new = min(max_new_tokens, self.context - inputs.embeds.shape[1])
        if self._three_axes:
            ids = list(self.stream(inputs, new))
            return None if -1 in ids else self.until_eos(ids)
        self.reset_rope()
        watch = FiniteLogitsWatch()
        ids = self.network.generate(
            inputs_embeds=inputs.embeds,
            attention_mask=torch.ones(inputs.embeds.shape[:2], dtype=torch.long, device=inputs.embeds.device),
            max_new_tokens=new,
            logits_processor=LogitsProcessorList([watch]),
        )
        return self.until_eos(ids[0].tolist()) if watch.finite else None

    def stream(self, inputs: ModelInputs, max_new_tokens: int) -> Iterator[int]:
        """Answer one prompt greedily, token by token.

        Args:
            inputs: The prompt.
            max_new_tokens: The largest number of new tokens.

        Yields:
            Each token id as soon as it is known, including the one that ends the answer; -1 where logits are not
            finite, which ends it too.
        """
        self.reset_rope()
        prefix = self.new_prefixes(1)[0]
        prefix.storage.reserve(inputs.embeds.shape[1] + max_new_tokens)
        for _ in range(max_new_tokens):
            token = int(greedy(self.logits(self.run(inputs, prefix.cache)[0, -1])))
            yield token
            if token < 0 or token in self.eos_ids:
                return
            inputs = inputs.next(self.embed([token]))

    def until_eos(self, ids: list[int]) -> list[int]:
        """Return the ids before the first one that ends an answer, or all if none does."""
        end = next((k for k, i in enumerate(ids) if i in self.eos_ids), len(ids))
        return ids[:end]

    @contextmanager
    def static_rope(self) -> Iterator[None]:
        """Use the default RoPE in place of dynamic RoPE, which would synchronize the host to read the positions.

        The two are equal up to `shared_positions`.
        """
        rope, kind = self._decoder.rotary_emb, self._decoder.rotary_emb.rope_type
        rope.rope_type = "default" if kind == "dynamic" else kind
        try:
            yield
        finally:
            rope.rope_type = kind

    def reset_rope(self) -> None:
        """Reset dynamic RoPE, which would otherwise keep the frequencies of the longest prompt so far."""
        rope = self._decoder.rotary_emb
        if hasattr(rope, "original_inv_freq"):
            rope.register_buffer("inv_freq", rope.original_inv_freq.to(rope.inv_freq.device), persistent=False)
            rope.max_seq_len_cached = rope.original_max_seq_len


def sharing_limits(text: Any) -> list[int]:
    """Return the numbers of positions past which sharing a prefix is not exact.

    Past the first, dynamic RoPE rotates all keys by the length of the whole sequence. Past the other, a sliding window
    hides the beginning of the prefix. A model without either has no limit.

    Args:
        text: The config of the language model.
    """
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    limits = [text.max_position_embeddings] if (text.rope_parameters or {}).get("rope_type") == "dynamic" else []
    return limits + ([text.sliding_window] if slides else [])


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]
