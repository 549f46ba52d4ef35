"""A setting: what a run varies. Sampling, selection, aggregation and prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from sfllava.aggregators.base import (
    Aggregator,
    detailed_frames,
    for_model,
    has_pathways,
    make_images,
    name_of,
    tier_counts,
    token_count,
    with_frames,
    with_tiers,
)
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.tower import grid_for
from sfllava.display.objects import card, more, text
from sfllava.prompts import Prompt, check_placeholders
from sfllava.sampler.sampling import PUBLISHED, AnySample, FrameIndices, Sample, parse_rule
from sfllava.sampler.selection.selectors import UNIFORM, FrameSelection, parse_selection
from sfllava.types import SfllavaError

SelectionFor = Literal["all", "slow", "both"]
SELECTION_FOR: tuple[SelectionFor, ...] = get_args(SelectionFor)
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
        selection: `uniform`, or how frames are chosen for each question: `topk`, `bolt:power=2.5` and the like.
        selection_for: which frames are chosen: `all` frames of the setting; those of the `slow` pathway, while the
            others are uniform; or those of `both` pathways, each by itself.
        prompt: text with <video>, {question} and {options}, used in this setting in place of the model family's own.

    Raises:
        SfllavaError: a value is impossible; the message names it.
    """

    frames: int = 50
    aggregation: Aggregator | str = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
    label: str = ""
    prompt: str = ""
    frame_rule: str = PUBLISHED
    selection: FrameSelection | str = UNIFORM
    selection_for: SelectionFor = "all"
    chosen: FrameIndices | None = None
    """The frames themselves, once they have been chosen for a question."""

    def __post_init__(self) -> None:
        rule, most = parse_rule(self.frame_rule)
        object.__setattr__(self, "frame_rule", rule)
        object.__setattr__(self, "frames", most or self.frames)
        Sample(self.frames, rule)  # raises if the number is invalid
        if self.prompt:
            check_placeholders(self.prompt, self.label or "prompt")
        if isinstance(self.aggregation, str):
            object.__setattr__(self, "aggregation", parse_aggregation(self.aggregation))
        if isinstance(self.selection, str):
            object.__setattr__(self, "selection", parse_selection(self.selection))
        self._check_selection()

    def _check_selection(self) -> None:
        if self.selection_for not in SELECTION_FOR:
            raise SfllavaError(f"selection_for must be {', '.join(SELECTION_FOR)}, got {self.selection_for!r}")
        if not self.question_aware:
            object.__setattr__(self, "selection_for", "all")
        if self.question_aware and tier_counts(self.aggregation) and not self.frame_selection.selector.ranks:
            raise SfllavaError(
                f"{name_of(self.aggregation)} needs a selection that ranks frames, such as topk or qframe, got "
                f"{self.selection}"
            )
        found = has_pathways(self.aggregation) and detailed_frames(self.aggregation, self.frames)
        if self.selection_for != "all" and not found:
            raise SfllavaError(
                f"selection for {self.selection_for} needs an aggregation with a Slow and a Fast pathway, got "
                f"{name_of(self.aggregation)}"
            )

    @property
    def frame_selection(self) -> FrameSelection:
        """The selection, parsed."""
        assert isinstance(self.selection, FrameSelection)
        return self.selection

    @property
    def question_aware(self) -> bool:
        """Whether frames are chosen for each question."""
        return self.frame_selection.name != UNIFORM

    def with_chosen(self, frames: Sequence[int], detailed: Sequence[int] | None = None) -> Setting:
        """Return this setting for questions whose frames have been chosen; it keeps its name.

        Args:
            frames: indices of the frames in the video, in ascending order.
            detailed: those of the Slow pathway; the Fast one then has `frames`. None where the aggregation takes
                its pathways out of `frames`.
        """
        if detailed is None:
            return replace(self, label=self.name, chosen=FrameIndices(tuple(frames)))
        together = sorted({*frames, *detailed})
        at = {index: position for position, index in enumerate(together)}
        aggregation = with_frames(self.aggregation, [at[i] for i in detailed], [at[i] for i in frames])
        return replace(self, label=self.name, chosen=FrameIndices(tuple(together)), aggregation=aggregation)

    def with_ranked(self, tiers: Sequence[Sequence[int]]) -> Setting:
        """Return this setting for questions whose frames have been chosen and ranked; it keeps its name.

        Args:
            tiers: indices of the frames of each tier in the video, the best first.
        """
        together = sorted(index for tier in tiers for index in tier)
        at = {index: position for position, index in enumerate(together)}
        aggregation = with_tiers(self.aggregation, [[at[i] for i in tier] for tier in tiers])
        return replace(self, label=self.name, chosen=FrameIndices(tuple(together)), aggregation=aggregation)

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
        return self.chosen.frames if self.chosen else self.uniform_sample.count(total)

    def most_frames(self, total: int | None = None) -> int:
        """Return how many frames of a video are encoded for one question at most, where each pathway has its own."""
        apart = self.selection_for != "all" and self.chosen is None
        return self.frames_of(total) + (len(detailed_frames(self.aggregation, self.frames)) if apart else 0)

    @property
    def sample(self) -> AnySample:
        """The frames that were chosen for a question; otherwise the number of frames to sample, and the rule."""
        return self.chosen or self.uniform_sample

    @property
    def uniform_sample(self) -> Sample:
        """The number of frames to sample, and the rule that selects them, where none are chosen for a question."""
        return Sample(self.frames, self.frame_rule)

    @property
    def name(self) -> str:
        """The label, or frames and aggregation."""
        rule = "" if self.frame_rule == PUBLISHED else f"-{self.frame_rule}"
        chosen = f"-{self.selection}" if self.question_aware else ""
        chosen += f"-for-{self.selection_for}" if self.selection_for != "all" else ""
        return self.label or f"{self.frames}frms{rule}{chosen}-{name_of(self.aggregation)}"

    def __repr__(self) -> str:
        given = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("frames", "aggregation")]
        defaults = {f.name: f.default for f in fields(self)} | {"selection": parse_selection(UNIFORM)}
        more = "".join(f", {name}={value!r}" for name, value in given if value != defaults[name])
        return f"Setting({self.frames}, {name_of(self.aggregation)!r}{more})"

    def _repr_html_(self) -> str:
        facts = [f"{self.frames} frames"]
        if has_pathways(self.aggregation):
            facts.append(f"{len(detailed_frames(self.aggregation, self.frames))} of them slow, in detail")
        facts += [self.frame_rule] if self.frame_rule != PUBLISHED else []
        facts += [f"chosen by {self.selection}, for {self.selection_for}"] if self.question_aware else []
        facts += [name_of(self.aggregation)] if self.label else []
        try:
            tokens = f"{self.token_count():,} visual tokens at 24 × 24 patches a frame"
        except (SfllavaError, TypeError, AttributeError):  # `native` has none before it knows its model
            tokens = "the visual tokens depend on the model"
        own = more("own prompt", text(self.prompt)) if self.prompt else ""
        return card("Setting", self.name, text(tokens, soft=True), own, facts=facts)
