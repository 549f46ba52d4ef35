"""Greedy choice from logits, and detection of logits that are NaN or infinite, as where half precision overflows."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor

from sfllava.types import SfllavaError


class LogitsError(SfllavaError):
    """The logits of a model are NaN or infinite, so that its answer would mean nothing."""


def not_finite(dtype: torch.dtype) -> str:
    """Return an error message for logits that are not finite, which says what to try."""
    name = str(dtype).removeprefix("torch.")
    if dtype == torch.float16:
        return "the model's logits are not finite: float16 overflows; try --dtype bfloat16 or float32"
    return f"the model's logits are not finite in {name}: its weights may be damaged, or made for another dtype"


def is_finite(logits: Tensor) -> Tensor:
    """Return, for logits (... V), whether the largest of each row is finite: bool (...)."""
    return logits.amax(-1).isfinite()


def greedy(logits: Tensor) -> Tensor:
    """Choose the id of the largest logit, without host synchronization.

    Args:
        logits: (... V).

    Returns:
        Ids (...), -1 where the largest logit is not finite.
    """
    largest, ids = logits.max(-1)
    return ids.where(largest.isfinite(), -1)


class FiniteLogitsWatch(LogitsProcessor):
    """Watches the logits of transformers' `generate`; the result is read from the device once, at the end."""

    def __init__(self) -> None:
        self._finite: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note whether the scores (B V) are finite, and return them unchanged."""
        finite = is_finite(scores).all()
        self._finite = finite if self._finite is None else self._finite & finite
        return scores

    @property
    def finite(self) -> bool:
        """Whether all logits so far were finite."""
        return self._finite is None or bool(self._finite)
