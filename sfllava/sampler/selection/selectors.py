"""Which selections there are: each module of this package that has a `SELECTOR` is one."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np

import sfllava.sampler.selection as package
from sfllava.catalogue import unknown_name
from sfllava.sampler.sampling import Sample
from sfllava.types import SfllavaError

UNIFORM = "uniform"
Similarity = Literal["cosine", "dot"]
Choose = Callable[..., np.ndarray]
# One candidate per second; more than any real video has, and few enough for the memory
ONE_PER_SECOND = Sample(20_000, "fps:1")


@dataclass(frozen=True)
class Selector:
    """What a module of this package exposes as `SELECTOR`. The name of the module is the name of the selection.

    Attributes:
        choose: (scores (C) float64, n, seed, **options) -> (at most n) positions of candidates in ascending order,
            which may repeat. None where frames are not chosen by scores.
        usage: what it chooses, in a few words, for messages and help.
        options: the numbers that a user may change, with their defaults: a whole number from 0 where the default is
            one, otherwise a number above 0. `seed` is among them if the rule has noise.
        similarity: the score of a candidate: the cosine of the features of its image and of the text, or their dot
            product.
        candidates: the frames that are scored.
        repeats: whether a frame may be chosen several times, so that there may be more frames than candidates.
        ranks: whether it chooses the best of a ranking, so that fewer frames are always among more.
        from_list: whether the frames are those of a list that the user gives.
    """

    choose: Choose | None
    usage: str
    options: Mapping[str, float] = field(default_factory=dict)
    similarity: Similarity = "cosine"
    candidates: Sample = ONE_PER_SECOND
    repeats: bool = False
    ranks: bool = False
    from_list: bool = False


@dataclass(frozen=True)
class FrameSelection:
    """A selector with its options. `str()` has the name and the options that are not the defaults.

    Attributes:
        name: the name of the selector.
        options: the options that differ from the defaults, sorted.
    """

    name: str
    options: tuple[tuple[str, float], ...] = ()

    @property
    def selector(self) -> Selector:
        """The selector."""
        return selectors()[self.name]

    @property
    def needs_scores(self) -> bool:
        """Whether it chooses by the scores of candidates."""
        return self.selector.choose is not None

    def choose(self, scores: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
        """Choose frames among the candidates.

        Args:
            scores: (C) of the candidates, in the order of time.
            n: the number of frames.
            seed: of the noise, for a rule that has any; the seed of the options comes on top.

        Returns:
            (at most n) int64, positions of candidates in ascending order. All candidates where there are not more
            than `n`, unless the rule may repeat frames.

        Raises:
            SfllavaError: a score is not finite, or there is none.
        """
        selector = self.selector
        assert selector.choose is not None
        scores = np.asarray(scores, np.float64)
        if not len(scores) or not np.isfinite(scores).all():
            raise SfllavaError(f"selection {self}: needed finite scores of candidates, got {_describe(scores)}")
        if len(scores) <= n and not selector.repeats:
            return np.arange(len(scores))
        options = dict(selector.options) | dict(self.options)
        own_seed = int(options.pop("seed", 0))
        return np.asarray(selector.choose(scores, n, seed + own_seed, **options), np.int64)

    def __str__(self) -> str:
        options = ",".join(f"{name}={np.format_float_positional(value, trim='-')}" for name, value in self.options)
        return f"{self.name}:{options}" if options else self.name


@cache
def selectors() -> dict[str, Selector]:
    """Return all selectors by name."""
    found: dict[str, Selector] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        selector = getattr(importlib.import_module(f"{package.__name__}.{module}"), "SELECTOR", None)
        if isinstance(selector, Selector):
            found[module] = selector
    return dict(sorted(found.items(), key=lambda item: item[0] != UNIFORM))


def parse_selection(text: str) -> FrameSelection:
    """Make a selection from its name, with options if there are any.

    Args:
        text: such as `topk`, `bolt:power=2.5` or `qframe:seed=1,tau=0.8`.

    Raises:
        SfllavaError: there is no such selection or option, or the value is no number.
    """
    name, colon, rest = text.partition(":")
    known = selectors()
    if name not in known:
        raise SfllavaError(unknown_name("selection", name, known))
    defaults, given = known[name].options, {}
    for part in rest.split(",") if colon else ():
        option, _, value = part.partition("=")
        if option not in defaults or not re.fullmatch(r"-?\d+(\.\d+)?", value, re.ASCII):
            options = ", ".join(f"{option}={default:g}" for option, default in defaults.items()) or "none"
            raise SfllavaError(f"selection {text!r}: needed options as OPTION=NUMBER; {name} has {options}")
        given[option] = float(value)
        whole = isinstance(defaults[option], int)
        if given[option] < 0 or (not given[option].is_integer() if whole else not given[option]):
            needed = "a whole number from 0" if whole else "a number above 0"
            raise SfllavaError(f"selection {text!r}: {option}: needed {needed}, got {value}")
    return FrameSelection(name, tuple(sorted((k, v) for k, v in given.items() if v != defaults[k])))


def min_max(scores: np.ndarray) -> np.ndarray:
    """Scale scores to 0..1; where all are equal, all become 0."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros_like(scores)


def best(scores: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the n highest scores, in ascending order; of equal scores, the first ones count more."""
    return np.sort(np.argsort(-scores, kind="stable")[:n])


def _describe(scores: np.ndarray) -> str:
    return f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} that are not" if len(scores) else "none"
