"""Windows of similar frames: patches that stay the same in a window become one, and each group is merged on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfllava.aggregators.reduction import Reduction, joined, spread


@dataclass(frozen=True)
class Group:
    """Places of the frames from `start` to `stop`, each averaged over these frames.

    Attributes:
        start: first frame.
        stop: the frame after the last.
        places: (M) indices of patches in a frame, in order.
    """

    start: int
    stop: int
    places: Tensor

    def values(self, features: Tensor) -> Tensor:
        """(T N D) -> (M D) float32, the means over the frames."""
        return features[self.start : self.stop, self.places].float().mean(0)


def split(windows: Sequence[tuple[int, int]], scores: Sequence[Tensor], threshold: float, room: int) -> list[Group]:
    """Split each window into a group of static places and, for each frame, one of the others.

    A place is static where its score is above the threshold. As static places leave fewer patches, the most similar
    ones come first, and only so many of them that at least as many patches stay as tokens are wanted.

    Args:
        windows: (start, stop) of all windows, in order.
        scores: (N) for each window, how similar the patches at one place are; not used for a window of one frame.
        threshold: scores above it are static.
        room: patches that may be merged away.

    Returns:
        For each window the static group, where it has places, and then the groups of its frames.
    """
    lengths = torch.tensor([stop - start for start, stop in windows])
    flat = torch.stack(list(scores)).detach().double().cpu()
    saved = (lengths - 1)[:, None].expand(flat.shape).flatten()
    static = ((flat > threshold) & (lengths > 1)[:, None]).flatten()
    order = torch.where(static, flat.flatten(), -torch.inf).argsort(descending=True, stable=True)
    within = torch.where(static[order], saved[order], 0).cumsum(0) <= room
    static[order] &= within
    groups = []
    for (start, stop), mask in zip(windows, static.reshape(flat.shape)):
        here, others = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        groups += [Group(start, stop, here)] if len(here) else []
        groups += [Group(frame, frame + 1, others) for frame in range(start, stop) if len(others)]
    return groups


def merge_groups(
    features: Tensor, groups: Sequence[Group], tokens: int, merge: Callable[[Group, int], tuple[Tensor, Tensor]]
) -> Reduction:
    """Give each group tokens in proportion to its places, and merge it to so many.

    Args:
        features: (T N D).
        groups: from `split`.
        tokens: in all.
        merge: (group, its tokens) -> (M) the token of each place, -1 for none, and (M) its weight.
    """
    sizes = [len(group.places) for group in groups]
    parts = []
    for group, count in zip(groups, spread(tokens, sizes, sizes)):
        if not count:
            continue
        places = group.places.to(features.device)
        if count == len(places):
            owner, weight = torch.arange(count, device=places.device), torch.ones(count, device=places.device)
        else:
            owner, weight = merge(group, count)
        kept, length = owner >= 0, group.stop - group.start
        frames = torch.arange(group.start, group.stop, device=places.device)[:, None] * features.shape[1]
        parts.append((
            count,
            owner[kept].repeat(length),
            (frames + places[kept]).flatten(),
            (weight[kept] / length).repeat(length),
        ))  # fmt: skip
    return joined(parts)
