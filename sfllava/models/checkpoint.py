"""Reading checkpoint folders as a config and named tensors for transformers' LLaVA-NeXT.

There are two layouts: that of transformers (`model_type: llava_next`), and the original one of llava-v1.6
(`LlavaLlamaForCausalLM`, `LlavaMistralForCausalLM`). Nothing in a checkpoint is executed.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sfllava.types import SfllavaError

# The vision config of openai/clip-vit-large-patch14-336, so that it need not be downloaded
CLIP_L_336 = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}  # fmt: skip
_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "sliding_window", "bos_token_id", "eos_token_id",
    "pad_token_id",
)  # fmt: skip
_RENAMES = (
    ("model.vision_tower.vision_tower.", "vision_tower."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
    ("model.", "language_model.model."),
)
_BUFFERS = ("rotary_emb.inv_freq", "embeddings.position_ids")  # old checkpoints store these computed tensors

# Far above any real checkpoint: a damaged or hostile config could take all memory before its weights fail to load
_LARGEST = {
    "num_hidden_layers": 1_000, "hidden_size": 65_536, "intermediate_size": 1 << 20, "vocab_size": 1 << 22,
    "num_attention_heads": 4_096, "num_key_value_heads": 4_096, "head_dim": 65_536, "image_size": 4_096,
    "patch_size": 4_096,
}  # fmt: skip


class CheckpointError(SfllavaError):
    """A checkpoint folder cannot be loaded; the message names the folder, file or tensors."""


def read_checkpoint(
    folder: Path, vision_tower: str | Path | None = None
) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Read the config and the weights of a checkpoint folder.

    Args:
        folder: The checkpoint folder.
        vision_tower: A folder that replaces `mm_vision_tower` of the original layout.

    Returns:
        The JSON of a LlavaNextConfig, the tensors under the names that llava-hf uses, and the layout: "transformers"
        or "original".

    Raises:
        CheckpointError: A file is missing, damaged, or holds something else.
    """
    config, layout = read_config(folder, vision_tower)
    if layout == "transformers":
        return config, _drop_buffers(read_weights(folder)), layout
    return config, _read_original(folder, vision_tower), layout


def read_config(folder: Path, vision_tower: str | Path | None = None) -> tuple[dict[str, Any], str]:
    """Read the config of a checkpoint folder, which needs no weights.

    Args:
        folder: The checkpoint folder.
        vision_tower: A folder that replaces `mm_vision_tower` of the original layout.

    Returns:
        The JSON of a LlavaNextConfig, and the layout: "transformers" or "original".

    Raises:
        CheckpointError: The config is missing or cannot be used.
    """
    config = read_json(folder / "config.json")
    if "mm_vision_tower" in config:
        return _original_config(folder, config, vision_tower), "original"
    return config, "transformers"


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
    for index, single in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        if (folder / index).exists():
            files = read_json(folder / index).get("weight_map")
            if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
                raise CheckpointError(f"{folder / index}: needed a weight_map of file names")
            names = sorted(set(files.values()))
        elif (folder / single).exists():
            names = [single]
        else:
            continue
        weights: dict[str, Tensor] = {}
        for name in names:
            if Path(name).name != name or name in ("", "..") or "\0" in name:
                raise CheckpointError(f"{folder / index}: weight files are next to the index, got {name!r}")
            weights |= _read_file(folder / name)
        return weights
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


def _drop_buffers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.endswith(_BUFFERS)}


def _tower(folder: Path, config: dict[str, Any], vision_tower: str | Path | None) -> tuple[str, Path | None]:
    """Return the name of the vision tower of the original layout, and its folder where there is one."""
    name = str(vision_tower or config["mm_vision_tower"])
    places = [Path(name)] if vision_tower else [folder / name, Path(name)]
    tower = next((path for path in places if _is_folder(path)), None)
    if vision_tower and tower is None:
        raise CheckpointError(f"{vision_tower}: no such folder of a vision tower")
    return name, tower


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long for a file name
        return False


def _read_original(folder: Path, vision_tower: str | Path | None) -> dict[str, Tensor]:
    config = read_json(folder / "config.json")
    tower_name, tower = _tower(folder, config, vision_tower)
    weights = {}
    for name, tensor in _drop_buffers(read_weights(folder)).items():
        old, new = next((pair for pair in _RENAMES if name.startswith(pair[0])), ("", ""))
        weights[new + name[len(old) :]] = tensor
    # where the tower was not trained, the published code loads the tower's own weights, even if the checkpoint has a
    # copy of them
    if not config.get("unfreeze_mm_vision_tower", False):
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("vision_tower.")}
        tower = tower or _from_hub(tower_name, folder)
        own = _drop_buffers(read_weights(tower))
        weights |= {f"vision_tower.{name}": own[name] for name in own if name.startswith("vision_model.")}
    return weights


def _original_config(folder: Path, config: dict[str, Any], vision_tower: str | Path | None) -> dict[str, Any]:
    for field, needed in (("mm_projector_type", "mlp2x_gelu"), ("mm_vision_select_feature", "patch")):
        if config.get(field, needed) != needed:
            raise CheckpointError(f"{folder / 'config.json'}: {field} must be {needed}, got {config[field]!r}")
    tower_name, tower = _tower(folder, config, vision_tower)
    if tower is None and not _is_clip(tower_name) and not config.get("unfreeze_mm_vision_tower", False):
        tower = _from_hub(tower_name, folder)
    text = {field: config[field] for field in _TEXT_FIELDS if config.get(field) is not None}
    if not isinstance(text.get("vocab_size"), int):
        raise CheckpointError(f"{folder / 'config.json'}: needed vocab_size, got {text.get('vocab_size')!r}")
    text["model_type"] = "mistral" if "mistral" in str(config.get("model_type", "")).lower() else "llama"
    # Mistral's class would otherwise fill in a window of 4,096 that llava-v1.6-mistral-7b does not have.
    if text["model_type"] == "mistral":
        text.setdefault("sliding_window", None)
    return {
        "model_type": "llava_next",
        "text_config": text,
        "vision_config": _vision_config(tower, tower_name, folder),
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "image_token_index": config["vocab_size"],  # not used: visual tokens are spliced in as embeddings
        "tie_word_embeddings": False,
        "dtype": config.get("torch_dtype") or config.get("dtype") or "float16",
    }


def _vision_config(tower: Path | None, name: str, folder: Path) -> dict[str, Any]:
    if tower is not None:
        config = read_json(tower / "config.json")
        own = config.get("vision_config", config)
        if not isinstance(own, dict):
            raise CheckpointError(f"{tower / 'config.json'}: vision_config must be an object, got {type(own).__name__}")
        return {**own, "model_type": "clip_vision_model"}
    if _is_clip(name):
        return dict(CLIP_L_336)
    raise CheckpointError(
        f"{folder / 'config.json'}: mm_vision_tower {name!r} is neither a folder nor clip-vit-large-patch14-336; "
        "pass its folder as vision_tower"
    )


def _is_clip(name: str) -> bool:
    return name.rstrip("/").endswith("clip-vit-large-patch14-336")


def _from_hub(name: str, folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.bin"]))
    except Exception as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: without unfreeze_mm_vision_tower the vision weights are those of {name!r}, "
            f"which is no folder here and cannot be downloaded ({type(error).__name__}); pass its folder: vision_tower"
        ) from error


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
