"""What a setting takes of a model's context, memory and arithmetic, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from sfllava.aggregators.base import image_count, part_counts
from sfllava.display.units import format_operations
from sfllava.files import format_bytes
from sfllava.models.base import VideoLM
from sfllava.prompts import Prompt
from sfllava.settings import Setting
from sfllava.types import Question


@dataclass(frozen=True)
class ContextBudget:
    """What a prompt takes.

    Attributes:
        slow: tokens of the Slow pathway.
        fast: tokens of the Fast pathway.
        other: visual tokens of methods without these pathways.
        text: text tokens.
        context: positions of the model.
        kv_bytes: bytes of keys and values.
        prefill_flops: operations of the prefill.
        encode_flops: operations of the vision tower.
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
        """All visual tokens."""
        return self.slow + self.fast + self.other

    @property
    def rest(self) -> int:
        """Positions left for the answer; below 1, the prompt does not fit."""
        return self.context - self.visual - self.text

    @property
    def over(self) -> bool:
        """Whether the prompt does not fit."""
        return self.rest < 1

    @property
    def parts(self) -> dict[str, int]:
        """Tokens by name, without empty parts; the rest of the context last."""
        named = {"slow": self.slow, "fast": self.fast, "visual": self.other, "text": self.text}
        return {name: n for name, n in named.items() if n} | {"rest": max(self.rest, 0)}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {n:,}" for name, n in self.parts.items() if name != "rest")
        end = f"{1 - self.rest:,} too many" if self.over else f"{self.rest:,} left"
        return (
            f"{self.visual:,} visual tokens; {parts}; {end} of a context of {self.context:,}; keys and values "
            f"{format_bytes(self.kv_bytes)}; prefill {format_operations(self.prefill_flops)}; "
            f"vision tower {format_operations(self.encode_flops)}"
        )


def context_budget(
    setting: Setting,
    model: VideoLM,
    question: Question | str = "",
    prompt: Prompt | None = None,
    total: int | None = None,
) -> ContextBudget:
    """Count what a setting and a question take; no tensor is filled.

    Args:
        setting: frames, aggregation and prompt.
        model: whose context and shape count.
        question: what will be asked.
        prompt: in place of the setting's or the model family's own.
        total: frames of the video, which may be fewer than the setting's; None for a video that has enough.

    Returns:
        The budget.
    """
    setting = setting.for_model(model.info)
    question = Question(question) if isinstance(question, str) else question
    text = sum(map(len, model.info.prompt_ids(question, prompt or setting.prompt_or(None))))
    frames = setting.frames_of(total)
    parts = part_counts(setting.aggregation, frames, *model.info.grid)
    slow, fast, visual = parts.get("slow", 0), parts.get("fast", 0), sum(parts.values())
    return ContextBudget(
        slow, fast, visual - slow - fast, text, model.info.context,
        kv_bytes=model.info.shape.kv_bytes(visual + text, model.info.dtype.itemsize),
        prefill_flops=model.info.shape.prefill_flops(visual + text),
        encode_flops=model.info.shape.encode_flops(image_count(setting.aggregation, setting.most_frames(total))),
    )  # fmt: skip
