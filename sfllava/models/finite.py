"""Greedy choice from logits, and what is said where they are no numbers, as where half precision overflows."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor

from sfllava.types import SfllavaError


class LogitsError(SfllavaError):
    """A model whose logits are NaN or infinite: what it would say means nothing."""


def not_finite(dtype: torch.dtype) -> str:
    """Why a question has no answer, and what to try."""
    name = str(dtype).removeprefix("torch.")
    if dtype == torch.float16:
        return "the model's logits are not finite: float16 overflows; try --dtype bfloat16 or float32"
    return f"the model's logits are not finite in {name}: its weights may be damaged, or made for another dtype"


def is_finite(logits: Tensor) -> Tensor:
    """(... V) -> bool (...): whether a largest logit can be told."""
    return logits.amax(-1).isfinite()


def greedy(logits: Tensor) -> Tensor:
    """(... V) -> (...) the id of the largest logit, or -1 where that is not finite; without host synchronization."""
    largest, ids = logits.max(-1)
    return ids.where(largest.isfinite(), -1)


class FiniteLogitsWatch(LogitsProcessor):
    """Watches the logits of transformers' `generate`: whether all were finite is read once, at the end."""

    def __init__(self) -> None:
        self._finite: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        finite = is_finite(scores).all()
        self._finite = finite if self._finite is None else self._finite & finite
        return scores

    @property
    def finite(self) -> bool:
        return self._finite is None or bool(self._finite)
