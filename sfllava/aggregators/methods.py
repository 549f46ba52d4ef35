"""Which methods there are: each module of this package that has a `METHOD` is one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import sfllava.aggregators as package
from sfllava.aggregators.base import Aggregator

COUNT = r"([1-9]\d{0,5})"
COUNT_OR_ZERO = r"(0|[1-9]\d{0,5})"


@dataclass(frozen=True)
class Candidates:
    """The settings of a method among which the one for a token budget is chosen.

    Attributes:
        make: (tokens wanted, frames, patches of a frame) -> the candidates.
        distance: (candidate, its tokens, frames) -> how far it is from the usual setting. Among the candidates that
            use nearly all of the budget the smallest distance wins; without it, the largest candidate wins.
    """

    make: Callable[[int, int, int], Iterable[Aggregator]]
    distance: Callable[[Aggregator, int, int], float] | None = None


@dataclass(frozen=True)
class Method:
    """What a module of this package exposes as `METHOD`.

    Attributes:
        pattern: regular expression of the names of its aggregators.
        usage: such a name with its parameters in capitals, for error messages.
        make: what the groups of the pattern are passed to; returns the aggregator.
        budgets: candidates for a token budget, by the name under which they are compared.
        rank: place in lists of methods, from the first; equal ones are sorted by module name.
    """

    pattern: str
    usage: str
    make: Callable[..., Aggregator]
    budgets: Mapping[str, Candidates] = field(default_factory=dict)
    rank: int = 50


def methods() -> list[Method]:
    """Find the methods of all modules in this package."""
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        method = getattr(importlib.import_module(f"{package.__name__}.{module.name}"), "METHOD", None)
        if method is not None:
            found.append((method.rank, module.name, method))
    return [method for *_, method in sorted(found, key=lambda entry: entry[:2])]
