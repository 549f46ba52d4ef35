"""Check the `--model_args` of lmms-eval before a checkpoint is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfllava.models.load import load_model
from sfllava.settings import Setting
from sfllava.types import SfllavaError

# lmms-eval converts true, false and numbers, and leaves everything else as text
_KINDS: dict[str, tuple[type, ...]] = {
    "frames": (int,),
    "aggregation": (str,),
    "decoders": (int,),
    "decode_seconds": (int, float),
    "device": (str,),
    "dtype": (str,),
    "device_map": (str,),
    "vision_tower": (str,),
    "rope_factor": (int, float),
    "context": (int,),
    "family": (str,),
    "positions": (str,),
    "timestamps": (bool,),
    "quantize": (str,),
}
_SELECTION = ("selection", "selection_for", "scorer", "score_text", "score_cache", "frame_list")
NO_SELECTION = (
    "lmms-eval gives prompts, not questions, so frames cannot be chosen for them: use `sfllava evaluate --selection`"
)
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class ModelArguments:
    """The checked arguments of `--model_args`.

    Attributes:
        pretrained: A checkpoint folder, a Hub name, or `tiny`.
        setting: Frames and aggregation.
        loading: The other arguments of `load_model`.
        decoders: Number of processes that decode videos.
        decode_seconds: Time limit in seconds for decoding one video.
    """

    pretrained: str
    setting: Setting
    loading: dict[str, Any]
    decoders: int = 2
    decode_seconds: float = 120.0


def loading_names() -> list[str]:
    """Return the names of the options of `load_model`."""
    return list(inspect.signature(load_model).parameters)[1:]


def check_arguments(given: Mapping[str, Any]) -> ModelArguments:
    """Check the arguments of a model, which lmms-eval has already split at commas and equals signs.

    Args:
        given: The values by name; true, false and numbers are converted, everything else is text. `none` means None.

    Returns:
        The arguments.

    Raises:
        SfllavaError: A name is unknown, or a value has the wrong type or is invalid.
    """
    names = ["pretrained", "frames", "aggregation", *loading_names(), "decoders", "decode_seconds"]
    if asked := [name for name in given if name in _SELECTION]:
        raise SfllavaError(f"model_args: {asked[0]}: {NO_SELECTION}")
    if unknown := [name for name in given if name not in names]:
        raise SfllavaError(f"model_args: unknown {', '.join(unknown)}; choose from {', '.join(names)}")
    if not given.get("pretrained"):
        raise SfllavaError("model_args: needed pretrained=PATH, a checkpoint folder, a Hub name, or tiny")
    values: dict[str, Any] = {n: None if isinstance(v, str) and v.lower() == "none" else v for n, v in given.items()}
    for name, value in values.items():
        _check_kind(name, value)
    sampling = {name: values[name] for name in ("frames", "aggregation") if name in values}
    decoding = {name: values[name] for name in ("decoders", "decode_seconds") if name in values}
    if low := [name for name, value in decoding.items() if value <= 0]:
        raise SfllavaError(f"model_args: {low[0]} must be above 0, got {decoding[low[0]]}")
    loading = {name: values[name] for name in loading_names() if name in values}
    return ModelArguments(str(given["pretrained"]), Setting(**sampling), loading, **decoding)


def _check_kind(name: str, value: Any) -> None:
    kinds = _KINDS.get(name)
    optional = name in loading_names() and inspect.signature(load_model).parameters[name].default is None
    if kinds is None or (value is None and (optional or name == "rope_factor")):
        return
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise SfllavaError(f"model_args: {name} must be {_NAMES[kinds[-1]]}, got {value!r}")
