"""What a setting would take of a model's context, memory and arithmetic, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sfllava.aggregators.slowfast import SlowFast
from sfllava.prompts import Prompt
from sfllava.settings import Setting
from sfllava.types import Question

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


@dataclass(frozen=True)
class ContextBudget:
    """Tokens of the context by what they hold, bytes of keys and values, and operations of the prefill and the tower.

    The visual tokens of a method without pathways are `other`.
    """

    slow: int
    fast: int
    other: int
    text: int
    context: int
    kv_bytes: int
    prefill_flops: int
    encode_flops: int

    @property
    def visual(self) -> int:
        return self.slow + self.fast + self.other

    @property
    def rest(self) -> int:
        """Positions left for the answer; below 1, the prompt does not fit."""
        return self.context - self.visual - self.text

    @property
    def over(self) -> bool:
        return self.rest < 1

    @property
    def parts(self) -> dict[str, int]:
        """Tokens by name, without what is empty; the rest of the context last."""
        named = {"slow": self.slow, "fast": self.fast, "visual": self.other, "text": self.text}
        return {name: n for name, n in named.items() if n} | {"rest": max(self.rest, 0)}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {n:,}" for name, n in self.parts.items() if name != "rest")
        end = f"{1 - self.rest:,} too many" if self.over else f"{self.rest:,} left"
        return (
            f"{self.visual:,} visual tokens; {parts}; {end} of a context of {self.context:,}; keys and values "
            f"{self.kv_bytes / 2**20:,.1f} MiB; prefill {_si(self.prefill_flops)}FLOP; "
            f"vision tower {_si(self.encode_flops)}FLOP"
        )


def context_budget(
    setting: Setting,
    model: VideoLM,
    question: Question | str = "",
    prompt: Prompt | None = None,
    total: int | None = None,
) -> ContextBudget:
    """The budget of a setting and a question; no tensor is filled.

    total: frames of the video, which may be fewer than the setting's; None for a video that has enough.
    """
    question = Question(question) if isinstance(question, str) else question
    prompt = prompt or (Prompt(setting.prompt, setting.name) if setting.prompt else None)
    text = sum(map(len, model.info.prompt_ids(question, prompt)))
    frames = setting.frames if total is None else min(setting.frames, total)
    visual, aggregation = setting.token_count(*model.info.grid, total), setting.aggregation
    slow = fast = 0
    if isinstance(aggregation, SlowFast):
        if aggregation.fast != (0, 0):
            fast = frames * aggregation.fast[0] * aggregation.fast[1]
        slow = visual - fast
    compose = getattr(aggregation, "make_images", None)
    images = len(compose(np.zeros((frames, 4, 4, 3), np.uint8))) if compose else frames
    return ContextBudget(
        slow, fast, visual - slow - fast, text, model.info.context,
        kv_bytes=model.info.shape.kv_bytes(visual + text, model.info.dtype.itemsize),
        prefill_flops=model.info.shape.prefill_flops(visual + text),
        encode_flops=model.info.shape.encode_flops(images),
    )  # fmt: skip


def _si(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} P"
