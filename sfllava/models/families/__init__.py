"""Model families: one file each, named after the `model_type` in its configs, with one object `FAMILY`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from sfllava.models.checkpoint import CheckpointError, check_quantization
from sfllava.models.family import Configuration, Family, LoadOptions
from sfllava.types import SfllavaError


def family_names() -> list[str]:
    """Return the values of `model_type` that can be loaded."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def configure(config: dict[str, Any], folder: Path, options: LoadOptions) -> Configuration:
    """Check the config of a checkpoint with its family.

    Args:
        config: The JSON of the config.
        folder: The checkpoint folder.
        options: How to use the checkpoint.

    Raises:
        CheckpointError: The config cannot be used; one line that names the folder.
    """
    check_quantization(config, folder)
    try:
        return find_family(config, folder).configure(config, folder, options)
    except (SfllavaError, MemoryError):
        raise
    except Exception as error:  # a damaged config can fail anywhere
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder / 'config.json'}: cannot be used: {type(error).__name__}: {text}") from error


def find_family(config: dict[str, Any], folder: Path) -> Family:
    """Find the family of a checkpoint by the `model_type` in its config.

    Args:
        config: The JSON of the config.
        folder: The checkpoint folder, to name in the error.

    Raises:
        CheckpointError: There is no family with this `model_type`.
    """
    model_type = config.get("model_type")
    if model_type not in family_names():
        raise CheckpointError(
            f"{folder / 'config.json'}: needed a checkpoint with model_type {' or '.join(family_names())}, or an "
            f"original LLaVA folder with mm_vision_tower, got model_type {model_type!r}"
        )
    return importlib.import_module(f"{__name__}.{model_type}").FAMILY
