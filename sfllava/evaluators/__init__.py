"""Evaluators score predictions without a model: one file each, with one object `EVALUATOR`."""

from __future__ import annotations

import importlib
import pkgutil

from sfllava.evaluators.base import Evaluator
from sfllava.types import Task


def find_evaluator(task: Task) -> Evaluator | None:
    """The evaluator of a task, or None where only a judge can score its predictions."""
    for module in pkgutil.iter_modules(__path__):
        evaluator = getattr(importlib.import_module(f"{__name__}.{module.name}"), "EVALUATOR", None)
        if evaluator is not None and evaluator.task == task:
            return evaluator
    return None
