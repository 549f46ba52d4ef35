"""Attention of many questions behind one prefix, where several query heads share their keys (Mistral, Yi)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sfllava_grouped"
# Query rows up to which keys are not copied; with more, the mask of all heads' rows would be the larger part
_ROWS = 256


def grouped_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' `sdpa`, but under a mask it does not copy keys and values for each head that shares them.

    query: (B H Q d); key, value: (B K N d), of which H / K heads each are read. Those heads' queries become rows of
    one head, so that the prefix is read once for all of them. Returns (B Q H d).
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
