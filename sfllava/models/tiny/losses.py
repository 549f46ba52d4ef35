"""The losses of the tiny model's training: on replies, and auxiliary ones on patches, answers and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfllava.benchmarks.shapesqa.scenes import CELLS
from sfllava.models.family import CLIP_STATISTICS, normalize
from sfllava.models.tiny.data import BOS, Batch
from sfllava.models.tiny.stills import CONTENTS

# the layers of the language model after which the auxiliary losses on the answer and on the options apply
ANSWER_LAYER, OPTION_LAYER = 3, 4


def patch_loss(visual: Tensor, batch: Batch, head: torch.nn.Module) -> Tensor:
    """Return the loss of `head` at classifying the content and position of each projected patch (B*K cells D)."""
    what, which = head(visual).float().flatten(0, 1).split((len(CONTENTS), CELLS * CELLS), -1)
    contents = torch.from_numpy(batch.patches).flatten()
    # most patches are empty; with full weight they would dominate those that show something
    weight = torch.where(contents > 0, 1.0, 0.1)
    places = torch.arange(CELLS * CELLS).repeat(len(visual))
    losses = F.cross_entropy(what, contents, ignore_index=-1, reduction="none")
    losses = losses + 0.3 * F.cross_entropy(which, places, reduction="none")
    return (weight * losses).sum() / weight.sum()


def render_batch(network: Any, batch: Batch) -> Tensor:
    """Return the projected patches of a batch's stills (B*K cells D)."""
    x = normalize(torch.from_numpy(batch.stills).flatten(0, 1), CLIP_STATISTICS)
    return network.model.multi_modal_projector(network.model.vision_tower(x).last_hidden_state[:, 1:])


def reply_loss(
    network: Any, heads: Any, batch: Batch, visual: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return the language model's loss on a batch, and how many first tokens of replies are right.

    Args:
        network: the model.
        heads: the auxiliary heads, of which `options` is used.
        batch: the batch.
        visual: its projected patches (B*K cells D).
        rng: the source of the random position ids.

    Returns:
        The loss, auxiliary losses included; and (2), the shares that are right among words and among letters.
    """
    b, k = batch.stills.shape[:2]
    visual = visual.unflatten(0, (b, k))
    if batch.kept is not None:
        visual = visual.take_along_dim(torch.from_numpy(batch.kept)[..., None], 2)
    visual = visual.flatten(1, 2)
    language = network.model.language_model
    first = language.embed_tokens(torch.full((b, 1), BOS))
    # a sequence without BOS begins with a patch of another one
    first = torch.where(torch.from_numpy(batch.has_bos)[:, None, None], first, visual[:, -1:].roll(1, 0))
    ids = [torch.from_numpy(slot) for slot in batch.ids]
    embeds = torch.cat([first, visual, *(language.embed_tokens(slot.clamp(min=0)) for slot in ids)], 1)
    n = 1 + visual.shape[1]
    # one visual prefix, many questions: each attends to the prefix and to itself
    owners = torch.cat([torch.full((n,), -1), *(torch.full((slot.shape[1],), q) for q, slot in enumerate(ids))])
    seen = ((owners[None] == -1) | (owners[None] == owners[:, None])).tril()
    output = language(
        inputs_embeds=embeds, attention_mask=torch.zeros(seen.shape).masked_fill(~seen, -1e4)[None, None],
        position_ids=_position_ids(n, ids, rng)[None], use_cache=False, output_hidden_states=True,
    )  # fmt: skip
    replies = torch.cat([torch.zeros(b, n, dtype=torch.bool), *map(torch.from_numpy, batch.replies)], 1)
    targets = torch.cat([torch.zeros(b, n, dtype=torch.long), *ids], 1)[:, 1:][replies[:, 1:]]
    logits = network.lm_head(output.last_hidden_state[:, :-1][replies[:, 1:]]).float()
    # every slot has the same weight, whatever the length of its replies
    slots = owners[1:].expand(b, -1)[replies[:, 1:]]
    weights = torch.ones(len(ids)).div(torch.bincount(slots, minlength=len(ids)))[slots] / len(ids)
    loss = (weights * F.cross_entropy(logits, targets, reduction="none")).sum()
    known = torch.cat([torch.full((b, n), -1), *map(torch.from_numpy, batch.known)], 1)
    early = network.lm_head(language.norm(output.hidden_states[ANSWER_LAYER][known >= 0])).float()
    right = logits.argmax(-1) == targets
    firsts = (replies[:, 1:] & ~replies[:, :-1])[replies[:, 1:]]
    options = torch.cat([torch.full((b, n), -1), *map(torch.from_numpy, batch.options)], 1)
    chosen = heads["options"](output.hidden_states[OPTION_LAYER][options >= 0]).float().squeeze(-1)
    loss = loss + 0.5 * F.cross_entropy(early, known[known >= 0])
    loss = loss + 0.5 * F.binary_cross_entropy_with_logits(chosen, options[options >= 0].float())
    return loss, torch.stack([right[firsts & (slots // 4 == part)].float().mean() for part in (0, 1)])


def _position_ids(n: int, ids: list[Tensor], rng: np.random.Generator) -> Tensor:
    """Return the position ids of a prefix of n tokens and of the questions, each of which follows the prefix.

    Most prefixes get random gaps, so that the model accepts longer prompts than those in training.
    """
    places = np.arange(n)
    if rng.random() < 0.7:
        places = np.sort(rng.choice(int(rng.uniform(n, 2 * n + 600)), n, replace=False))
    return torch.cat([torch.from_numpy(places), *(places[-1] + 1 + torch.arange(s.shape[1]) for s in ids)])
