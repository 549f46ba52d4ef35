"""The change of an answer's log-likelihood when a part of the visual tokens is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sfllava.aggregators.sources import TokenSource
from sfllava.attribution.attribution import Attribution
from sfllava.models.base import VideoLM
from sfllava.models.packed_decoding import Prefix
from sfllava.models.replay import log_likelihoods
from sfllava.prompts import Prompt
from sfllava.types import SfllavaError


def removable_parts(attribution: Attribution) -> dict[str, Tensor]:
    """List what can be left out: each part where there are several, and each frame.

    A frame takes all tokens along that come from it. No frame can be left out where tokens mix several frames.

    Args:
        attribution: an answer and where its visual tokens come from.

    Returns:
        Part -> (N) which visual tokens stay without it.
    """
    keep = {}
    if len(attribution.sources) > 1:
        for source in attribution.sources:
            keep[source.name] = torch.ones(attribution.attention.shape[1], dtype=torch.bool)
            keep[source.name][source.tokens] = False
    if not mix_frames(attribution.sources):
        shares = torch.cat([source.frames for source in attribution.sources])
        # the last frame first: the tokens before the first one left out need not be computed again
        for frame in reversed(range(shares.shape[1])):
            without = shares[:, frame] == 0
            if without.any() and not without.all():
                keep[f"frame {frame}"] = without
    return keep


def mix_frames(sources: Sequence[TokenSource]) -> bool:
    """Return whether any visual token comes from several frames, so that no frame can be left out."""
    return not all((source.frames.max(1).values == 1).all() for source in sources)


def leave_out(
    model: VideoLM,
    attribution: Attribution,
    grid: Any,
    parts: Sequence[str] | None = None,
    *,
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
    going: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[str, float]]:
    """Measure the exact change of the answer's log-likelihood without each part, one part at a time.

    The tokens after those left out move up, as in a prompt that never had them; at positions in time they stay.

    Args:
        model: the model that gave the answer.
        attribution: the answer; its `left_out` collects the results.
        grid: (T h w D) the patch grid of the frames.
        parts: such as "slow", "fast" or "frame 3"; None for all.
        prompt: in place of the setting's or the model family's own.
        prefix: keys and values of an earlier prompt; what agrees with it is not computed again.
        going: asked before each part; False ends the measurement.

    Yields:
        Part, and the change in nats.

    Raises:
        SfllavaError: a part cannot be left out.
    """
    for part, changes in leave_out_all(model, [attribution], grid, parts, prompt=prompt, prefix=prefix, going=going):
        yield part, changes[0]


def leave_out_all(
    model: VideoLM,
    attributions: Sequence[Attribution],
    grid: Any,
    parts: Sequence[str] | None = None,
    *,
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
    going: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[str, list[float]]]:
    """Measure the same for several answers about one video at the same setting.

    The remaining visual tokens go through the language model once for all answers.

    Args:
        model, grid, parts, prompt, prefix, going: as in `leave_out`.
        attributions: one or more answers; the results are also added to the `left_out` of each.

    Yields:
        The part, and the change of the log-likelihood of each answer in nats.

    Raises:
        SfllavaError: a part cannot be left out.
    """
    first = attributions[0]
    prompt, prefix = prompt or first.setting.prompt_or(None), prefix or model.new_prefixes(1)[0]
    removable = removable_parts(first)
    tokens = model.tokens(first.setting, grid, first.video.pts_seconds)
    for part in removable if parts is None else parts:
        if part not in removable:
            raise SfllavaError(f"{part!r} cannot be left out; what can: {', '.join(removable) or 'nothing here'}")
        if not going():
            return
        rest = tokens.without(~removable[part])
        for each in attributions:
            without = log_likelihoods(model, rest, each.question, each.token_ids, prompt, prefix).sum()
            each.left_out[part] = float(without) - each.log_likelihood
        yield part, [each.left_out[part] for each in attributions]
