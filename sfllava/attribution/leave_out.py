"""The change of an answer's log-likelihood without a part of the visual tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfllava.attribution.attribution import Attribution
from sfllava.models.replay import log_likelihoods
from sfllava.prompts import Prompt
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM
    from sfllava.models.packed_decoding import Prefix


def removable_parts(seen: Attribution) -> dict[str, Tensor]:
    """What can be left out: each pathway where there are two, each frame; which visual tokens (N) stay without it.

    A frame takes the tokens along that it alone is in. Where tokens mix frames, no frame can be left out.
    """
    n = seen.attention.shape[1]
    keep = {}
    if len(seen.pathways) > 1:
        for pathway in seen.pathways:
            keep[pathway.name] = torch.ones(n, dtype=torch.bool)
            keep[pathway.name][pathway.tokens] = False
    shares = torch.cat([pathway.frames for pathway in seen.pathways])
    if (shares.max(1).values == 1).all():
        # the last frame first: what stands before the first token left out is not computed again
        for frame in reversed(range(shares.shape[1])):
            without = shares[:, frame] == 0
            if without.any() and not without.all():
                keep[f"frame {frame}"] = without
    return keep


def leave_out(
    model: VideoLM,
    seen: Attribution,
    grid: Tensor,
    parts: Sequence[str] | None = None,
    *,
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
    going: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[str, float]]:
    """Parts ("slow", "fast", "frame 3"; all) and the exact change of the answer's log-likelihood without them.

    The tokens behind those left out move up, as in a prompt that never had them. Each is kept in `seen.left_out`.
    """
    prompt = prompt or (Prompt(seen.setting.prompt, seen.setting.name) if seen.setting.prompt else None)
    possible, tokens = removable_parts(seen), seen.setting.tokens(grid)
    for part in possible if parts is None else parts:
        if part not in possible:
            raise SfllavaError(f"{part!r} cannot be left out; what can: {', '.join(possible) or 'nothing here'}")
        if not going():
            return
        rest = tokens[possible[part].to(tokens.device)]
        without = float(log_likelihoods(model, rest, seen.question, seen.token_ids, prompt, prefix).sum())
        seen.left_out[part] = without - seen.log_likelihood
        yield part, seen.left_out[part]
