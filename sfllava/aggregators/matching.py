"""The setting of a method that comes closest to a token budget."""

from __future__ import annotations

import contextlib

from sfllava.aggregators.base import Aggregator, token_count
from sfllava.aggregators.methods import Candidates, methods
from sfllava.catalogue import unknown_name
from sfllava.types import SfllavaError

_NEARLY = 0.95  # of the largest candidate: those above it count as equally large


def budget_methods() -> dict[str, Candidates]:
    """Return the candidates for a token budget by name, such as "slowfast", "slow only" or "merged"."""
    return {name: candidates for method in methods() for name, candidates in method.budgets.items()}


def match_budget(method: str, tokens: int, frames: int = 50, h: int = 24, w: int = 24) -> Aggregator:
    """Choose the aggregator of a method that comes nearest to a token budget from below.

    Args:
        method: a name in `budget_methods()`.
        tokens: visual tokens that it may have.
        frames: sampled frames.
        h: rows of patches in an image.
        w: columns of patches in an image.

    Returns:
        The largest that fits. For "slowfast", among those within 5 % of the largest, the one in which the Slow
        pathway's share of the tokens is nearest to that in the paper's default.

    Raises:
        SfllavaError: there is no such method, or none of its candidates is small enough.
    """
    known = budget_methods()
    if method not in known:
        raise SfllavaError(unknown_name("method", method, known))
    sizes: list[tuple[int, Aggregator]] = []
    for aggregator in known[method].make(tokens, frames, h * w):
        with contextlib.suppress(SfllavaError):  # a pool that this grid does not allow
            sizes.append((token_count(aggregator, frames, h, w), aggregator))
    fitting = [(size, aggregator) for size, aggregator in sizes if size <= tokens]
    if not fitting:
        smallest = f"; its smallest has {min(size for size, _ in sizes)}" if sizes else ""
        raise SfllavaError(f"{method} has no setting of at most {tokens} tokens at {h}x{w} patches a frame{smallest}")
    largest, choice = max(fitting, key=lambda entry: entry[0])
    distance = known[method].distance
    if distance is None:
        return choice
    large = [(size, aggregator) for size, aggregator in fitting if size >= _NEARLY * largest]
    return min(large, key=lambda entry: distance(entry[1], entry[0], frames))[1]
