"""A setting: frames, aggregation and prompt; what a run varies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfllava.aggregators.base import Aggregation, name_of
from sfllava.prompts import Prompt, check_placeholders
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class Setting:
    """How a video becomes tokens: `frames` sampled frames, then an aggregation (or the name of one).

    A video of fewer frames gives all it has.
    """

    frames: int = 50
    aggregation: Aggregation | str = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
    label: str = ""
    prompt: str = ""
    """Text with <video>, {question} and {options} that takes the place of the prompt, for this setting alone"""

    def __post_init__(self) -> None:
        if isinstance(self.frames, bool) or not isinstance(self.frames, int) or self.frames < 1:
            raise SfllavaError(f"frames must be a whole number of at least 1, got {self.frames!r}")
        if self.prompt:
            check_placeholders(self.prompt, self.label or "prompt")
        if isinstance(self.aggregation, str):
            from sfllava.aggregators.naming import parse_aggregation  # parsing needs torch; importing types must not

            object.__setattr__(self, "aggregation", parse_aggregation(self.aggregation))

    def prompt_or(self, default: Prompt | None) -> Prompt | None:
        """The setting's own prompt, or `default` where it has none."""
        return Prompt(self.prompt, self.name) if self.prompt else default

    def images(self, frames: Any) -> Any:
        """Frames (T H W 3) -> what the vision tower is to see of them: themselves, or images tiled of them."""
        compose = getattr(self.aggregation, "make_images", None)
        return compose(frames) if compose else frames

    def tokens(self, grid: Any) -> Any:
        """Patch grid (T h w D) -> visual tokens (N D)."""
        assert callable(self.aggregation)
        return self.aggregation(grid)

    def token_count(self, h: int = 24, w: int = 24, total: int | None = None) -> int:
        """Visual tokens in frames of h x w patches; of a video of `total` frames, or of any that has enough."""
        from sfllava.aggregators.base import token_count

        assert callable(self.aggregation)
        return token_count(self.aggregation, self.frames if total is None else min(self.frames, total), h, w)

    @property
    def name(self) -> str:
        """`label`, or frames and aggregation, as rows and figures call this setting."""
        return self.label or f"{self.frames}frms-{name_of(self.aggregation)}"
