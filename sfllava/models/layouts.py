"""Read the two layouts of checkpoint folders as a config and tensors for transformers.

One is the layout of transformers (`model_type: llava_next` and others). The other is the original layout of llava-v1.5,
llava-v1.6 and LLaVA-OneVision (`LlavaLlamaForCausalLM`, `LlavaMistralForCausalLM`, `LlavaQwenForCausalLM`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from sfllava.models.checkpoint import CheckpointError, drop_buffers, read_json, read_weights

# The vision config of openai/clip-vit-large-patch14-336, so that it need not be downloaded
CLIP_L_336 = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}  # fmt: skip
# The vision config of google/siglip-so400m-patch14-384, the tower of LLaVA-OneVision
SIGLIP_SO400M_384 = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14, "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6, "vision_use_head": False,
}  # fmt: skip
_TOWERS = {"clip-vit-large-patch14-336": CLIP_L_336, "siglip-so400m-patch14-384": SIGLIP_SO400M_384}
_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "sliding_window", "use_sliding_window",
    "max_window_layers", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
)  # fmt: skip
_RENAMES = (
    ("model.vision_tower.vision_tower.", "vision_tower."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", "language_model.lm_head."),
    ("model.", "language_model.model."),
)


def read_checkpoint(
    folder: Path, vision_tower: str | Path | None = None
) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Read the config and the weights of a checkpoint folder.

    Args:
        folder: The checkpoint folder.
        vision_tower: A folder that replaces `mm_vision_tower` of the original layout.

    Returns:
        The JSON of a transformers config, the tensors by their names in llava-hf checkpoints, and the layout:
        "transformers" or "original".

    Raises:
        CheckpointError: A file is missing or damaged, or has other contents than needed.
    """
    config, layout = read_config(folder, vision_tower)
    if layout == "transformers":
        return config, drop_buffers(read_weights(folder)), layout
    return config, _read_original(folder, vision_tower), layout


def read_config(folder: Path, vision_tower: str | Path | None = None) -> tuple[dict[str, Any], str]:
    """Read the config of a checkpoint folder, without its weights.

    Args:
        folder: The checkpoint folder.
        vision_tower: A folder that replaces `mm_vision_tower` of the original layout.

    Returns:
        The JSON of a transformers config, and the layout: "transformers" or "original".

    Raises:
        CheckpointError: The config is missing or cannot be used.
    """
    config = read_json(folder / "config.json")
    if "mm_vision_tower" in config:
        return _original_config(folder, config, vision_tower), "original"
    return config, "transformers"


def _tower(folder: Path, config: dict[str, Any], vision_tower: str | Path | None) -> tuple[str, Path | None]:
    """Return the name of the vision tower of an original layout, and its folder if there is one."""
    name = str(vision_tower or config["mm_vision_tower"])
    candidates = [Path(name)] if vision_tower else [folder / name, Path(name)]
    tower = next((path for path in candidates if _is_folder(path)), None)
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
    for name, tensor in drop_buffers(read_weights(folder)).items():
        old, new = next((pair for pair in _RENAMES if name.startswith(pair[0])), ("", ""))
        weights[new + name[len(old) :]] = tensor
    # if the tower was not trained, the published code loads the weights of the tower's own checkpoint, even if this
    # checkpoint has a copy of them
    if not _tower_was_trained(config):
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("vision_tower.")}
        tower = tower or _from_hub(tower_name, folder)
        own = drop_buffers(read_weights(tower))
        weights |= {f"vision_tower.{name}": own[name] for name in own if name.startswith("vision_model.")}
    if "unpad" not in str(config.get("mm_patch_merge_type", "")):
        weights.pop("image_newline", None)
    vision = _vision_config(tower, tower_name, folder)
    if vision["model_type"] != "siglip_vision_model":
        return weights
    # the transformers layout of LLaVA-OneVision has neither SigLIP's last layers nor its head
    layer = "vision_tower.vision_model.encoder.layers."
    used = vision["num_hidden_layers"] + 1 + config.get("mm_vision_select_layer", -2)
    unused = tuple(f"{layer}{i}." for i in range(used, vision["num_hidden_layers"]))
    unused += ("vision_tower.vision_model.head.",)
    return {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}


def _tower_was_trained(config: dict[str, Any]) -> bool:
    """Return whether the weights of the vision tower in the checkpoint differ from those of the tower's own."""
    return bool(config.get("unfreeze_mm_vision_tower")) or "mm_vision_tower" in str(config.get("mm_tunable_parts"))


def _text_type(config: dict[str, Any]) -> str:
    """Return the `model_type` of the language model in transformers."""
    # LLaVA-OneVision's model_type is llava; only its architecture has the name of the language model
    kind = f"{config.get('model_type')} {config.get('architectures')}".lower()
    return next((name for part, name in (("mistral", "mistral"), ("qwen", "qwen2")) if part in kind), "llama")


def _original_config(folder: Path, config: dict[str, Any], vision_tower: str | Path | None) -> dict[str, Any]:
    for field, needed in (("mm_projector_type", "mlp2x_gelu"), ("mm_vision_select_feature", "patch")):
        if config.get(field, needed) != needed:
            raise CheckpointError(f"{folder / 'config.json'}: {field} must be {needed}, got {config[field]!r}")
    tower_name, tower = _tower(folder, config, vision_tower)
    if tower is None and _known_tower(tower_name) is None and not _tower_was_trained(config):
        tower = _from_hub(tower_name, folder)
    text = {field: config[field] for field in _TEXT_FIELDS if config.get(field) is not None}
    if not isinstance(text.get("vocab_size"), int):
        raise CheckpointError(f"{folder / 'config.json'}: needed vocab_size, got {text.get('vocab_size')!r}")
    text["model_type"] = _text_type(config)
    # the default of MistralConfig is a sliding window of 4,096, which llava-v1.6-mistral-7b does not have
    if text["model_type"] == "mistral":
        text.setdefault("sliding_window", None)
    vision = _vision_config(tower, tower_name, folder)
    selected, strategy = config.get("mm_vision_select_layer", -2), "default"
    # llava-v1.5 has no image_newline
    model_type = "llava_next" if "unpad" in str(config.get("mm_patch_merge_type", "")) else "llava"
    if vision["model_type"] == "siglip_vision_model":  # only the layers up to the selected one are kept
        vision |= {"num_hidden_layers": vision["num_hidden_layers"] + 1 + selected, "vision_use_head": False}
        model_type, selected, strategy = "llava_onevision", -1, "full"
    return {
        "model_type": model_type,
        "text_config": text,
        "vision_config": vision,
        "vision_feature_layer": selected,
        "vision_feature_select_strategy": strategy,
        "projector_hidden_act": "gelu",
        "image_token_index": config["vocab_size"],  # not used: visual tokens are spliced in as embeddings
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "dtype": config.get("torch_dtype") or config.get("dtype") or "float16",
        # the original LLaVA-OneVision was trained with another chat format than the processor on the hub writes
        **({"sfllava_family": "llava_qwen"} if model_type == "llava_onevision" else {}),
    }


def _vision_config(tower: Path | None, name: str, folder: Path) -> dict[str, Any]:
    if tower is not None:
        config = read_json(tower / "config.json")
        own = config.get("vision_config", config)
        if not isinstance(own, dict):
            raise CheckpointError(f"{tower / 'config.json'}: vision_config must be an object, got {type(own).__name__}")
        siglip = "siglip" in str(own.get("model_type", ""))
        return {**own, "model_type": "siglip_vision_model" if siglip else "clip_vision_model"}
    if (known := _known_tower(name)) is not None:
        return dict(known)
    raise CheckpointError(
        f"{folder / 'config.json'}: mm_vision_tower {name!r} is neither a folder nor {' nor '.join(_TOWERS)}; pass its "
        "folder as vision_tower"
    )


def _known_tower(name: str) -> dict[str, Any] | None:
    return next((config for known, config in _TOWERS.items() if name.rstrip("/").endswith(known)), None)


def _from_hub(name: str, folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.bin"]))
    except Exception as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: without unfreeze_mm_vision_tower, the vision weights are those of {name!r}, "
            f"which is not a folder and cannot be downloaded ({type(error).__name__}); pass its folder as vision_tower"
        ) from error
