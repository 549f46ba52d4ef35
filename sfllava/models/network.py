"""Making the network of a checkpoint: the class of its family, filled with weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from sfllava.models.checkpoint import CheckpointError
from sfllava.models.family import Family
from sfllava.models.quantization import prepare_quantized, quantization_config


def make_network(
    folder: Path,
    family: Family,
    config: Any,
    weights: dict[str, Tensor],
    dtype: torch.dtype,
    device_map: Any,
    quantize: str | None = None,
) -> Any:
    """Make the network of a config from weights, one tensor after another.

    Args:
        folder, family: The checkpoint folder, to name in errors, and its family.
        config: The config object of transformers.
        weights: The tensors by name, memory-mapped.
        dtype: The dtype of the network.
        device_map: As in transformers.
        quantize: How to quantise the linear layers of the language model; None for not at all.

    Raises:
        CheckpointError: The weights do not fit the config.
    """
    more = {"quantization_config": quantization_config(quantize, dtype)} if quantize else {}
    with quiet():
        network, info = family.network.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            attn_implementation="sdpa",
            device_map=device_map,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **more,
        )
    missing = [key for key in info["missing_keys"] if not key.endswith(family.unused_tensors)]
    problems = [
        f"{label}: {', '.join(sorted(map(str, keys))[:12])}" + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")
        for label, keys in (
            ("missing tensors", missing),
            ("unexpected tensors", info["unexpected_keys"]),
            ("wrong shapes (name, in the file, needed)", info["mismatched_keys"]),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(f"{folder}: the weights do not fit the config: {'; '.join(problems)}")
    if quantize:
        prepare_quantized(network)
    return network


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loading report of transformers: CheckpointError says the same in one line."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
