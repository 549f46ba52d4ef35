"""Reading the files of checkpoint folders: JSON, tensors, and a hash of both. Nothing in them is executed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import tomllib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sfllava.types import SfllavaError

LIMITS = "limits.toml"
"""A file that a checkpoint folder may have: what the model is known to do"""
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")  # old checkpoints store these computed tensors

# Far above any real checkpoint: a damaged or hostile config could take all memory before its weights fail to load
_LARGEST = {
    "num_hidden_layers": 1_000, "hidden_size": 65_536, "intermediate_size": 1 << 20, "vocab_size": 1 << 22,
    "num_attention_heads": 4_096, "num_key_value_heads": 4_096, "head_dim": 65_536, "image_size": 4_096,
    "patch_size": 4_096, "depth": 1_000, "num_heads": 4_096, "out_hidden_size": 65_536,
}  # fmt: skip


class CheckpointError(SfllavaError):
    """A checkpoint folder cannot be loaded; the message names the folder, file or tensors."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; raise CheckpointError where it is missing or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; needed a checkpoint folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: needed a JSON object, got {type(value).__name__}")
    return value


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, memory-mapped, from .safetensors files or else from .bin files.

    Raises:
        CheckpointError: A file is missing, damaged, or holds something other than tensors.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        weights |= _read_file(path)
    return weights


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder's weights.

    Raises:
        CheckpointError: There are none, or an index names files that cannot be its own.
    """
    for index, single in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        if (folder / index).exists():
            files = read_json(folder / index).get("weight_map")
            if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
                raise CheckpointError(f"{folder / index}: needed a weight_map of file names")
            for name in set(files.values()):
                if Path(name).name != name or name in ("", "..") or "\0" in name:
                    raise CheckpointError(f"{folder / index}: weight files are next to the index, got {name!r}")
            return [folder / name for name in sorted(set(files.values()))]
        if (folder / single).exists():
            return [folder / single]
    raise CheckpointError(f"{folder}: no weights; needed model.safetensors or pytorch_model.bin, whole or sharded")


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            loaded = torch.load(path, map_location="cpu", weights_only=True)  # written before torch 1.6
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the index names this file, but it is not there") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it holds something other than tensors, which loading would have to run"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or cut off: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in loaded.items()):
        raise CheckpointError(f"{path}: needed named tensors, got something else")
    return loaded


def drop_buffers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the computed tensors of old checkpoints."""
    return {name: tensor for name, tensor in weights.items() if not name.endswith(_BUFFERS)}


def fingerprint(folder: Path, weights: dict[str, Tensor]) -> str:
    """Hash a checkpoint by samples of its tensors and by its text files.

    Training changes all of a tensor, so samples tell checkpoints apart without reading all weights. The hash does not
    protect against tampering.

    Args:
        folder: The checkpoint folder, for its .json and .model files.
        weights: The loaded tensors: of each the name, dtype, shape, and 16 spans of at most 1 KiB are hashed.

    Returns:
        A SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().reshape(-1)
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(weights[name].shape)}\0".encode())
        span = 1024 // tensor.element_size()
        for i in range(16):
            start = max(0, len(tensor) - span) * i // 15
            digest.update(tensor[start : start + span].contiguous().view(torch.uint8).numpy().tobytes())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".model") and not path.name.endswith(".index.json"):
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def known_visual_tokens(folder: Path) -> int | None:
    """Return the most visual tokens with which a checkpoint is known to answer, as its limits.toml says.

    The file is not part of the fingerprint, since it does not change an answer.

    Args:
        folder: The checkpoint folder.

    Returns:
        The number, or None without such a file.

    Raises:
        CheckpointError: The file has no such number.
    """
    file = folder / LIMITS
    if not file.exists():
        return None
    try:
        value = tomllib.loads(file.read_text(encoding="utf-8")).get("known_visual_tokens")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{file}: known_visual_tokens must be a whole number above 0, got {value!r}")
    return value


def check_sizes(given: dict[str, Any], where: str) -> None:
    """Check the sizes in a part of a config against the largest that any model has.

    Args:
        given: The part of the config.
        where: Its name, for the error.

    Raises:
        CheckpointError: A size is out of range.
    """
    for field, maximum in _LARGEST.items():
        value = given.get(field)
        if isinstance(value, int) and not 1 <= value <= maximum:
            raise CheckpointError(f"{where}: {field} must be from 1 to {maximum:,}, got {value:,}")


# Where the weights are quantised, the packages one of which can read them
_QUANTIZERS = {"bitsandbytes": ("bitsandbytes",), "awq": ("gptqmodel", "awq"), "gptq": ("gptqmodel",)}
_EXTRAS = {"bitsandbytes": "'sfllava[quantize]'"}


def check_quantization(config: dict[str, Any], folder: Path) -> None:
    """Raise CheckpointError if the weights are quantised and the package that reads them is not installed."""
    method = (config.get("quantization_config") or {}).get("quant_method")
    packages = _QUANTIZERS.get(str(method), ())
    if packages and not any(importlib.util.find_spec(name) for name in packages):
        what = _EXTRAS.get(packages[0], packages[0])
        raise CheckpointError(f"{folder}: its weights are quantised ({method}); reading them needs pip install {what}")


def check_full_precision(folder: Path) -> None:
    """Raise CheckpointError if the weights of a folder are quantised already, so that they cannot be quantised anew."""
    found = read_json(folder / "config.json").get("quantization_config")
    if found:
        method = found.get("quant_method", "unknown method") if isinstance(found, dict) else found
        raise CheckpointError(
            f"{folder}: its weights are quantised already ({method}): load them without quantize, or use the "
            "checkpoint in full precision"
        )
