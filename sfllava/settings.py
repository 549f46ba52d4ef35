"""A setting: what a run varies. Sampling, aggregation and prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sfllava.aggregators.base import Aggregator, for_model, make_images, name_of, token_count
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.tower import grid_for
from sfllava.prompts import Prompt, check_placeholders
from sfllava.sampler.sampling import PUBLISHED, Sample, parse_rule

D = TypeVar("D", bound=Prompt | None)


@dataclass(frozen=True)
class Setting:
    """How a video becomes visual tokens, and how a question is asked.

    Attributes:
        frames: frames to sample; a shorter video gives all that it has.
        aggregation: an aggregator, or the name of one, such as `slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4`.
        label: its name in rows and figures; by default made of frames and aggregation.
        frame_rule: the rule that selects the frames: `published`, `lmms-eval`, `vlmevalkit`, `mvbench`, or
            `fps:1,max:64` for one frame per second but at most 64. The number after `max` replaces `frames`.
        prompt: text with <video>, {question} and {options}, used in this setting in place of the model family's own.

    Raises:
        SfllavaError: a value is impossible; the message names it.
    """

    frames: int = 50
    aggregation: Aggregator | str = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
    label: str = ""
    prompt: str = ""
    frame_rule: str = PUBLISHED

    def __post_init__(self) -> None:
        rule, most = parse_rule(self.frame_rule)
        object.__setattr__(self, "frame_rule", rule)
        object.__setattr__(self, "frames", most or self.frames)
        Sample(self.frames, rule)  # raises if the number is invalid
        if self.prompt:
            check_placeholders(self.prompt, self.label or "prompt")
        if isinstance(self.aggregation, str):
            object.__setattr__(self, "aggregation", parse_aggregation(self.aggregation))

    def prompt_or(self, default: D) -> Prompt | D:
        """Return the setting's own prompt, or `default` where it has none."""
        return Prompt(self.prompt, self.name) if self.prompt else default

    def for_model(self, info: Any) -> Setting:
        """Return this setting for one model (`model.info`): `native` becomes the model's own aggregation."""
        bound = for_model(self.aggregation, info)
        return self if bound is self.aggregation else replace(self, aggregation=bound)

    def images(self, frames: Any) -> Any:
        """Return what the vision tower encodes of frames (T H W 3): the frames, or images made of them."""
        return make_images(self.aggregation, frames)

    def tokens(self, grid: Any) -> Any:
        """Aggregate a patch grid (T h w D) into visual tokens (N D)."""
        assert callable(self.aggregation)
        return self.aggregation(grid_for(self.aggregation, grid))

    def token_count(self, h: int = 24, w: int = 24, total: int | None = None) -> int:
        """Count the visual tokens without computing them.

        Args:
            h: rows of patches in an image.
            w: columns of patches in an image.
            total: frames of the video; None for a video that has enough.

        Returns:
            The number of tokens.
        """
        return token_count(self.aggregation, self.frames_of(total), h, w)

    def frames_of(self, total: int | None) -> int:
        """Return how many frames are sampled of a video of `total` frames, or of one that has enough (None)."""
        return self.sample.count(total)

    @property
    def sample(self) -> Sample:
        """The number of frames to sample, and the rule that selects them."""
        return Sample(self.frames, self.frame_rule)

    @property
    def name(self) -> str:
        """The label, or frames and aggregation."""
        rule = "" if self.frame_rule == PUBLISHED else f"-{self.frame_rule}"
        return self.label or f"{self.frames}frms{rule}-{name_of(self.aggregation)}"
