"""Where a checkpoint is, and the device and dtype that it is loaded with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfllava.files import is_url
from sfllava.models.checkpoint import CheckpointError
from sfllava.types import SfllavaError

TINY = Path(__file__).with_name("tiny") / "weights"


def checkpoint_folder(path_or_name: str | Path) -> Path:
    """Return the folder of a checkpoint, downloaded if it is a hub name.

    Args:
        path_or_name: As in `load_model`.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    if str(path_or_name) == "tiny":  # a folder of that name is written as ./tiny
        return TINY
    return local_or_hub_folder(path_or_name, "checkpoint", "llava-hf/llava-v1.6-vicuna-7b-hf", ["*.jinja", "*.bin"])


def local_or_hub_folder(path_or_name: str | Path, kind: str, example: str, files: Sequence[str]) -> Path:
    """Return a folder on this machine, or that of a hub name after its download.

    Args:
        path_or_name: A folder, or a hub name.
        kind: What it should be, for messages, such as "checkpoint".
        example: A hub name of that kind.
        files: Patterns of the files to download besides JSON, safetensors and sentencepiece models.

    Raises:
        CheckpointError: There is no such folder, and it cannot be downloaded.
    """
    name, path = str(path_or_name), Path(path_or_name).expanduser()
    needed = f"needed a {kind} folder or a hub name such as {example}"
    if is_url(path_or_name):
        raise CheckpointError(f"{name}: {needed}, got a URL")
    if path.is_dir():
        return path
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: no such {kind} folder; {needed}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", *files]))
    except Exception as error:
        raise CheckpointError(
            f"{name}: neither a folder here nor a {kind} that could be downloaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]})"
        ) from error


def device_of(device: str) -> str:
    """Resolve a device name.

    Args:
        device: "auto", or a name that torch knows.

    Returns:
        A name that torch knows.

    Raises:
        SfllavaError: There is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SfllavaError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SfllavaError(f"device {device}: no CUDA GPU is usable here")
    return device


def dtype_of(dtype: str | torch.dtype, on_cpu: bool, config: dict[str, Any], weights: dict[str, Tensor]) -> torch.dtype:
    """Resolve a dtype.

    Args:
        dtype: "auto", a name, or a torch dtype.
        on_cpu: Whether "auto" means float32.
        config: The JSON of the checkpoint's config.
        weights: The checkpoint's tensors, for a config without a dtype.

    Raises:
        SfllavaError: There is no such dtype.
    """
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
