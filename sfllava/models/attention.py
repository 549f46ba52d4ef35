"""Attention of the language model: for many questions after one prefix, and for a prefill after a cached front.

Grouped-query attention (Mistral, Yi) copies no keys and values for questions. A prefill that follows a shorter cached
front uses the causal kernel: with a mask in its place, attention takes about twice as long as without any cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sfllava_grouped"
# Up to this many query rows, keys are not copied; with more, the repeated mask would be larger than the copy
_ROWS = 256


def grouped_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute attention as transformers' `sdpa` does, without copying keys and values for the heads that share them.

    The queries of heads that share keys become rows of one head, so that the prefix is read once for all of them.

    Args:
        module: The attention module.
        query: (B H Q d).
        key: (B K N d), each of the K heads for H / K heads of queries.
        value: (B K N d).
        attention_mask: bool (B 1 Q N), or None: the queries are the last of the N positions, and attention is causal.
        **options: As transformers passes them, such as `scaling`.

    Returns:
        (B Q H d), and None in place of attention weights.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    rows, cached = query.shape[2], key.shape[2] - query.shape[2]
    if attention_mask is None and rows > 1 and cached:  # as `prefill_mask` decided
        # the causal kernel takes as many queries as keys: the output of those added is dropped
        query = torch.nn.functional.pad(query, (0, 0, cached, 0))
        return sdpa_attention_forward(module, query, key, value, None, **options)[0][:, cached:], None
    if groups == 1 or attention_mask is None or rows * groups > _ROWS:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(len(query), key.shape[1], groups * rows, -1),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, groups, 1),
        scale=options.get("scaling"),
    )
    return out.reshape(query.shape).transpose(1, 2).contiguous(), None


def prefill_mask(*args: Any, **options: Any) -> Tensor | None:
    """Make the mask that transformers' `sdpa` would, or None where attention is causal and no mask is needed.

    In addition to `sdpa`, none is made where more than half of the positions are new: `grouped_attention` then computes
    the causal attention of all positions, which takes no longer.

    Args:
        *args: Passed on.
        **options: As transformers passes them.

    Returns:
        bool (B 1 Q N), or None.
    """
    new, positions = options.get("q_length", 0), options.get("kv_length", 0)
    plain = options.get("allow_is_causal_skip") and all(
        options.get(n) is None for n in ("attention_mask", "local_size")
    )
    if plain and positions < 2 * new and options.get("q_offset") == positions - new:
        return None
    return sdpa_mask(*args, **options)


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, prefill_mask)
