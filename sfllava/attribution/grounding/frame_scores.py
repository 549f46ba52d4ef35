"""Scores of the sampled frames by two measures of attribution: attention, and leave-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sfllava.aggregators.base import image_count, name_of
from sfllava.aggregators.sources import TokenSource, token_sources
from sfllava.aggregators.tower import PatchGrid, tower_needs
from sfllava.attribution.attribution import Attribution
from sfllava.attribution.leave_out import leave_out_all, mix_frames, removable_parts
from sfllava.prompts import Prompt
from sfllava.settings import Setting
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo, VideoLM
    from sfllava.models.packed_decoding import Prefix

MEASURES = ("attention", "leave-out")


def attention_scores(attribution: Attribution) -> np.ndarray:
    """Score each frame by the attention to it, relative to uniform attention.

    Let a_pt be the attention to the tokens of frame t in token source p (such as Slow or Fast), averaged over the words
    of the answer. The score of frame t is the mean of a_pt / mean(a_p) - 1 over the sources that contain the frame;
    mean(a_p) is over the frames in source p. More tokens alone thus do not raise the score of a frame. A frame without
    tokens has the score 0.

    Args:
        attribution: an answer.

    Returns:
        (T) scores: 0 for average attention, 1 for twice the average.
    """
    total, parts = np.zeros(len(attribution.video.frames)), np.zeros(len(attribution.video.frames))
    for source in attribution.sources:
        attention = attribution.heat(source.name).sum((1, 2))
        shown = (source.frames > 0).any(0).numpy()
        even = attention[shown].mean()
        if even > 0:
            total[shown] += attention[shown] / even - 1
            parts[shown] += 1
    return total / np.maximum(parts, 1)


def leave_out_scores(
    model: VideoLM,
    attributions: Sequence[Attribution],
    grid: Any,
    *,
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
) -> list[np.ndarray]:
    """Score each frame by how much the log-likelihood of each answer drops without it.

    Args:
        model: the model that gave the answers.
        attributions: one or more answers about the same video at the same setting.
        grid: (T h w D) the patch grid of the frames.
        prompt: replaces the prompt of the setting or of the model family.
        prefix: keys and values of an earlier prompt; a common prefix is not computed again.

    Returns:
        For each answer, (T) scores: the drop of its log-likelihood in nats when the frame is left out; 0 for a frame
        without visual tokens.

    Raises:
        SfllavaError: no frame can be left out.
    """
    first = attributions[0]
    _check_one_frame_each(first.sources, first.setting)
    scores = [np.zeros(len(first.video.frames)) for _ in attributions]
    frames = [part for part in removable_parts(first) if part.startswith("frame ")]
    for part, changes in leave_out_all(model, attributions, grid, frames, prompt=prompt, prefix=prefix):
        for own, change in zip(scores, changes):
            own[int(part.removeprefix("frame "))] = -change
    return scores


def check_scores(setting: Setting, info: ModelInfo, measures: Sequence[str]) -> None:
    """Check that frames can be scored at a setting, with random features in place of a video.

    Args:
        setting: how frames become visual tokens, for this model (`setting.for_model`).
        info: the model.
        measures: one or more of MEASURES.

    Raises:
        SfllavaError: a measure is unknown, the visual tokens cannot be mapped back to frames, or no frame can be
            left out.
    """
    if not measures or set(measures) - set(MEASURES):
        raise SfllavaError(f"needed one or more of the measures {', '.join(MEASURES)}, got {list(measures)}")
    images = image_count(setting.aggregation, setting.frames)
    grid = torch.rand(images, *info.grid, 8, generator=torch.Generator().manual_seed(0))
    if needs := tower_needs(setting.aggregation):
        grid = PatchGrid(grid, **{name: grid if name == "keys" else grid[..., 0] for name in needs})
    sources = token_sources(setting.aggregation, grid, setting.frames)
    if "leave-out" in measures:
        _check_one_frame_each(sources, setting)


def _check_one_frame_each(sources: Sequence[TokenSource], setting: Setting) -> None:
    if mix_frames(sources):
        raise SfllavaError(
            "leave-out needs visual tokens that each come from one frame, but "
            f"{name_of(setting.aggregation)} mixes frames: choose another aggregation, or attention only"
        )
