"""What `--model_args` of lmms-eval may say, checked before a checkpoint is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfllava.models.load import load_model
from sfllava.settings import Setting
from sfllava.types import SfllavaError

# lmms-eval turns true, false and numbers into values and leaves the rest as text
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
}
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class ModelArguments:
    """The checked arguments of `--model_args`.

    Attributes:
        pretrained: The checkpoint folder, hub name, or `tiny`.
        setting: Frames and aggregation.
        loading: The further arguments of `load_model`.
        decoders: Number of processes that decode videos.
        decode_seconds: The longest time in seconds that one video may take to decode.
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
    """Check the arguments of a model, as lmms-eval has split them at commas and equals signs.

    Args:
        given: Their values by name: true, false and numbers as such, everything else as text. `none` is None.

    Returns:
        The arguments.

    Raises:
        SfllavaError: A name is not known, or a value is of the wrong kind or impossible.
    """
    names = ["pretrained", "frames", "aggregation", *loading_names(), "decoders", "decode_seconds"]
    if unknown := [name for name in given if name not in names]:
        raise SfllavaError(f"model_args: there is no {', '.join(unknown)}; known are {', '.join(names)}")
    if not given.get("pretrained"):
        raise SfllavaError("model_args: needed pretrained=PATH, a checkpoint folder, hub name, or tiny")
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
