"""Judges grade open-ended answers, with a model or by a rule: one file each, with one object `JUDGE`."""

from __future__ import annotations

import importlib
import pkgutil

from sfllava.catalogue import unknown_name
from sfllava.evaluators.judges.base import JudgeKind, JudgeOptions
from sfllava.types import SfllavaError

__all__ = ["JudgeKind", "JudgeOptions", "find_judge", "judge_kinds", "judge_names"]


def judge_kinds() -> list[JudgeKind]:
    """All kinds of judges, found in the modules of this package."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return [module.JUDGE for module in modules if hasattr(module, "JUDGE")]


def judge_names() -> list[str]:
    """The names that `--judge` takes."""
    return sorted(name for kind in judge_kinds() for name in kind.names)


def find_judge(name: str) -> JudgeKind:
    """The kind of judge that has a name.

    Raises:
        SfllavaError: There is none; the message lists all names.
    """
    for kind in judge_kinds():
        if name in kind.names:
            return kind
    raise SfllavaError(unknown_name("judge", name, judge_names()))
