"""The log-likelihood of a given answer, and the attention over the visual tokens while it was generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from sfllava.models.base import VideoLM
from sfllava.models.kv_cache import KVCacheView, Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.visual_tokens import VisualTokens
from sfllava.prompts import Prompt
from sfllava.types import Question, SfllavaError

# Query rows whose attention is in memory at once, for all heads of one layer: 32 x 32 heads x 8,192 keys are 34 MB
ROWS = 32


@torch.inference_mode()
def log_likelihoods(
    model: VideoLM,
    tokens: Tensor | VisualTokens,
    question: Question,
    generated_ids: Sequence[int],
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
) -> Tensor:
    """Compute the log-likelihood of each token of an answer, given the tokens before it.

    Args:
        model: The model.
        tokens: The visual part of the prompt, with N visual tokens.
        question: The question.
        generated_ids: The A token ids of the answer, without its end.
        prompt: Replaces the prompt of the question's task.
        prefix: From `new_prefixes`; filled and reused.

    Returns:
        Natural logarithms, float32 (A), normalized over the ids that the model may generate.

    Raises:
        SfllavaError: The answer is empty.
        ContextError: Prompt and answer do not fit the context.
    """
    rows = torch.cat(list(_replay(model, tokens, question, generated_ids, prompt, prefix)))
    logits = model.language_model.logits(rows).float()
    return logits.log_softmax(-1).gather(1, torch.tensor(list(generated_ids), device=logits.device)[:, None])[:, 0]


@torch.inference_mode()
def attention_weights(
    model: VideoLM,
    tokens: Tensor | VisualTokens,
    question: Question,
    generated_ids: Sequence[int],
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
) -> Tensor:
    """Compute the attention over the visual tokens at the positions that generate the tokens of an answer.

    Only these rows of the attention matrices are computed in addition to the forward, layer by layer.

    Args:
        model: The model.
        tokens: The visual part of the prompt, with N visual tokens.
        question: The question.
        generated_ids: The A token ids of the answer, without its end.
        prompt: Replaces the prompt of the question's task.
        prefix: From `new_prefixes`; filled and reused.

    Returns:
        float32 (A N), the mean of the softmax weights over all heads and layers. A row sums to the share of the visual
        tokens; the rest of the attention went to text.

    Raises:
        SfllavaError: The answer is empty.
        ContextError: Prompt and answer do not fit the context.
    """
    total = torch.zeros(len(generated_ids), VisualTokens.of(tokens).count, device=model.language_model.device)
    for _ in _replay(model, tokens, question, generated_ids, prompt, prefix, total):
        pass
    return total / len(model.language_model.attention_modules)


def _replay(
    model: VideoLM,
    tokens: Tensor | VisualTokens,
    question: Question,
    generated_ids: Sequence[int],
    prompt: Prompt | None,
    prefix: Prefix | None,
    total: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield, in parts, the hidden states (A D) that generate the tokens of the answer."""
    if not generated_ids:
        raise SfllavaError("needed an answer of at least one token, got an empty one")
    before, after = model.info.prompt_ids(question, prompt)
    length = len(before) + len(tokens) + len(after)
    model.info.check_context(len(tokens), len(before) + len(after) + len(generated_ids) - 1, question.text)
    language_model, visual = model.language_model, VisualTokens.of(tokens)
    alone = length + len(generated_ids) > language_model.shared_limit
    if not alone:
        ids = [*after, *generated_ids[:-1]]
        shared = language_model.prefill(before, visual, len(ids), prefix)
        parts = [(language_model.prompt(before, visual, ids).from_row(shared.length), len(generated_ids))]
    else:
        # past the limit the rotation depends on the length, so feed the tokens one by one, as in generation
        language_model.reset_rope()
        shared = language_model.new_prefixes(1)[0]
        shared.storage.reserve(length + len(generated_ids))
        parts = [(language_model.prompt(before, visual, after), 1)]
        for token in generated_ids[:-1]:
            parts.append((parts[-1][0].next(language_model.embed([token])), 1))
    # the keys of the visual tokens, without text between them
    keys = len(before) + (torch.arange(len(visual)) if visual.visual is None else visual.visual.nonzero()[:, 0].cpu())
    done = 0
    for inputs, rows in parts:
        part = None if total is None else total[done : done + rows]
        with _collect_attention(language_model, shared.cache, keys, part):
            hidden = language_model.run(inputs, shared.cache)
        done += rows
        yield hidden[0, -rows:]
    if not alone:
        shared.cache.crop_to(shared.length)


@contextmanager
def _collect_attention(
    model: LanguageModel, cache: KVCacheView, visual: Tensor, total: Tensor | None
) -> Iterator[None]:
    """Add to `total` (A N), layer by layer, the attention of the last A positions of the forward in the block."""

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        keys: Any = cache.layers[module.layer_idx].keys
        _add_rows(module, hidden[:, -len(total) :], kwargs["position_embeddings"], keys, visual, total)  # type: ignore[arg-type]

    modules = [] if total is None else model.attention_modules
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add_rows(
    module: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor], keys: Tensor, visual: Tensor, total: Tensor
) -> None:
    """Add the mean over heads of softmax(q k) at the keys of the visual tokens, for the last positions (1 A D)."""
    cos, sin = (part[:, -hidden.shape[1] :] for part in rotation)
    queries = module.q_proj(hidden).unflatten(-1, (-1, module.head_dim))
    norm = getattr(module, "q_norm", None)  # Qwen3's
    queries = (queries if norm is None else norm(queries)).transpose(1, 2)
    queries, _ = apply_rotary_pos_emb(queries, queries, cos, sin)
    groups = module.num_key_value_groups
    # heads that share keys are adjacent: (K G A d); scaled before the product, which float16 could not hold
    grouped = queries[0].unflatten(0, (-1, groups)) * module.scaling
    n, end = hidden.shape[1], keys.shape[-2]
    for i in range(0, n, ROWS):
        part = grouped[:, :, i : i + ROWS]
        weights = (part @ keys[0][:, None].transpose(-1, -2)).float()  # (K G A' end)
        own = torch.arange(end - n + i, end - n + i + part.shape[2], device=keys.device)
        weights.masked_fill_(torch.arange(end, device=keys.device) > own[:, None], -torch.inf)
        seen = weights.softmax(-1)[..., visual.to(weights.device)].mean((0, 1))
        total[i : i + ROWS] += seen.to(total.device)
