"""A checkpoint folder, or a hub name -> a `LlavaNext`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlavaNextForConditionalGeneration
from transformers.utils import logging as transformers_logging

from sfllava.files import is_url
from sfllava.models import attention
from sfllava.models.checkpoint import CheckpointError, fingerprint, read_checkpoint
from sfllava.models.llava_next import LlavaNext
from sfllava.models.operations import shape_of
from sfllava.models.sizes import configure
from sfllava.models.tokenizer import Tokenizer
from sfllava.types import SfllavaError

# parameters; those that a checkpoint lacks would be made in memory, only to be refused
_MUCH = 1_000_000_000
TINY = Path(__file__).with_name("tiny") / "weights"


def load_model(
    path_or_name: str | Path,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    device_map: str | dict[str, Any] | None = None,
    vision_tower: str | Path | None = None,
    rope_factor: float | None = 2.0,
    context: int = 8192,
) -> LlavaNext:
    """Load a LLaVA-NeXT checkpoint: a folder in either layout, a hub name, or `tiny`, the one in the package.

    device: auto (a GPU where there is one), cpu, cuda, cuda:1. dtype: auto (float32 on CPU, the checkpoint's half
    type elsewhere), or float32, float16, bfloat16. device_map: as in transformers, e.g. "auto", for a model larger
    than one GPU. vision_tower: the folder of the original layout's `mm_vision_tower`. rope_factor: of dynamic NTK
    RoPE, None for the checkpoint's own. context: the longest input; at most rope_factor times the checkpoint's
    positions. Raises CheckpointError.
    """
    folder = _folder(path_or_name)
    try:
        return _load(folder, device, dtype, device_map, vision_tower, rope_factor, context)
    except (SfllavaError, MemoryError):
        raise
    except torch.OutOfMemoryError as error:
        raise CheckpointError(f"{folder}: the model does not fit the memory of {device}: {_line(error)}") from error
    except Exception as error:  # a damaged folder can fail anywhere in three libraries
        raise CheckpointError(f"{folder}: cannot be loaded: {type(error).__name__}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _load(
    folder: Path,
    device: str,
    dtype: str | torch.dtype,
    device_map: str | dict[str, Any] | None,
    vision_tower: str | Path | None,
    rope_factor: float | None,
    context: int,
) -> LlavaNext:
    device = device_of(device)
    config_dict, weights, layout = read_checkpoint(folder, vision_tower)
    config, positions, keep = configure(config_dict, folder, rope_factor)
    needed, there = shape_of(config, keep).parameters, sum(tensor.numel() for tensor in weights.values())
    if needed > _MUCH and needed > 16 * there:  # weights of 4 bits are packed into fewer numbers
        raise CheckpointError(
            f"{folder}: the weights do not fit the config: it declares {needed:,} parameters, and there are {there:,}"
        )
    mark = fingerprint(folder, weights)  # before loading, which takes the tensors over
    on_cpu = device == "cpu" and device_map is None
    torch_dtype = _dtype(dtype, on_cpu, config_dict, weights)
    with _quiet():
        loaded: Any = LlavaNextForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch_dtype,
            attn_implementation="sdpa",
            device_map=device_map or {"": device},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    network, info = loaded
    problems = [
        f"{label}: {', '.join(sorted(map(str, keys))[:12])}" + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")
        for label, keys in (
            ("missing tensors", _wanted(info["missing_keys"])),
            ("unexpected tensors", info["unexpected_keys"]),
            ("wrong shapes (name, in the file, needed)", info["mismatched_keys"]),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(f"{folder}: the weights do not fit the config: {'; '.join(problems)}")
    network.model.language_model.config._attn_implementation = attention.NAME
    # hidden state -2 of 24 layers is what layer 23 gives; the rest would be computed in vain
    del network.model.vision_tower.encoder.layers[keep:]
    if (folder / "generation_config.json").exists():
        network.generation_config = GenerationConfig.from_pretrained(str(folder))
    return LlavaNext(
        network, Tokenizer(folder), path=folder, layout=layout, context=min(context, positions), fingerprint=mark
    )


def _wanted(missing: Iterable[str]) -> list[str]:
    # neither is used: newlines belong to tiles, the last norm to the pooled output
    return [k for k in missing if not k.endswith(("image_newline", "post_layernorm.weight", "post_layernorm.bias"))]


def _folder(path_or_name: str | Path) -> Path:
    if str(path_or_name) == "tiny":  # a folder of that name is ./tiny
        return TINY
    if is_url(path_or_name):
        raise CheckpointError(
            f"{path_or_name}: needed a checkpoint folder or a hub name such as llava-hf/llava-v1.6-vicuna-7b-hf, got a "
            "URL"
        )
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return path
    name = str(path_or_name)
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: no such checkpoint folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.bin", "*.model"]))
    except Exception as error:
        raise CheckpointError(
            f"{name}: neither a folder here nor a model that could be downloaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]})"
        ) from error


def device_of(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SfllavaError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SfllavaError(f"device {device}: no CUDA GPU is usable here")
    return device


def _dtype(dtype: str | torch.dtype, on_cpu: bool, config: dict[str, Any], weights: dict[str, Tensor]) -> torch.dtype:
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in names:
        return names[dtype]
    if dtype != "auto":
        raise SfllavaError(f"dtype must be auto, {', '.join(names)}, got {dtype!r}")
    if on_cpu:
        return torch.float32
    stored = config.get("dtype") or config.get("torch_dtype") or next(iter(weights.values())).dtype
    return names.get(str(stored).removeprefix("torch."), torch.float16)


@contextmanager
def _quiet() -> Iterator[None]:
    # the loading report repeats, over many lines, what CheckpointError says in one
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
