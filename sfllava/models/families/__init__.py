"""Families of backbones: one file each, named as `model_type` in their configs, with one object `FAMILY`."""

from __future__ import annotations

import importlib
import pkgutil

from sfllava.models.base import Family
from sfllava.models.checkpoint import CheckpointError


def family_names() -> list[str]:
    """The `model_type`s that can be loaded."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_family(model_type: str) -> Family:
    """The family of a config's `model_type`.

    Raises:
        CheckpointError: There is none.
    """
    if model_type not in family_names():
        raise CheckpointError(f"no family of models is called {model_type!r}; there are {', '.join(family_names())}")
    return importlib.import_module(f"{__name__}.{model_type}").FAMILY
