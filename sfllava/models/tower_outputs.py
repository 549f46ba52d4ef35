"""Attention and keys of one layer of a CLIP or SigLIP vision tower, computed beside its own forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def last_layer_outputs(
    layer: Any, first: int, needs: tuple[str, ...], run: Callable[[], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run an encoder, and compute what is needed of the inputs of one of its attention layers.

    The layer's own computation stays as it is, so that the features are those of a run without this.

    Args:
        layer: The attention module, with `q_proj`, `k_proj`, `num_heads` and `scale`.
        first: Number of rows before the patches: 1 where the tower has CLS, else 0.
        needs: Names of `TOWER_OUTPUTS`.
        run: Encodes T frames; the layer is called once.

    Returns:
        What `run` returns; "attention" (T N), float32, and "keys" (T N K), as in `PatchGrid`.
    """
    seen: list[Tensor] = []

    def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        out = run()
    finally:
        handle.remove()
    hidden = seen[-1]
    keys = layer.k_proj(hidden).unflatten(-1, (layer.num_heads, -1))  # (T rows heads K)
    found = {}
    if "attention" in needs:
        # one frame at a time: the mean over all queries takes a matrix of all pairs of patches for each head
        found["attention"] = torch.stack([_attention(layer, *pair, first) for pair in zip(hidden, keys)])[:, first:]
    if "keys" in needs:
        found["keys"] = keys.mean(2)[:, first:]
    return out, found


def _attention(layer: Any, hidden: Tensor, keys: Tensor, first: int) -> Tensor:
    """(rows D), (rows heads K) -> (rows) float32, from CLS, or the mean over all rows where there is none."""
    queries = layer.q_proj(hidden[:first] if first else hidden).unflatten(-1, (layer.num_heads, -1))
    scores = queries.transpose(0, 1).float() @ keys.permute(1, 2, 0).float() * layer.scale
    return scores.softmax(-1).mean((0, 1))
