"""Grouped-query attention (Mistral, Yi) for many questions after one prefix, without copies of keys and values."""

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
        attention_mask: bool (B 1 Q N), or None.
        **options: As transformers passes them, such as `scaling`.

    Returns:
        (B Q H d), and None in place of attention weights.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    rows = query.shape[2]
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


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
