"""What is known of a checkpoint by its config alone: enough to say what it would cost, without its weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlavaNextConfig

from sfllava.models.checkpoint import CLIP_L_336, CheckpointError, read_config
from sfllava.models.operations import Shape, shape_of
from sfllava.models.tokenizer import Tokenizer
from sfllava.types import SfllavaError

_VICUNA = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096}
# The language models of llava-v1.6, as their configs have them; all see through CLIP_L_336 up to its last but one layer
KNOWN: dict[str, dict[str, Any]] = {
    "7b": _VICUNA
    | {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11008}
    | {"num_attention_heads": 32, "num_key_value_heads": 32},
    "13b": _VICUNA
    | {"num_hidden_layers": 40, "hidden_size": 5120, "intermediate_size": 13824}
    | {"num_attention_heads": 40, "num_key_value_heads": 40},
    "mistral-7b": {"model_type": "mistral", "vocab_size": 32000, "max_position_embeddings": 32768}
    | {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, "sliding_window": None}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
    "34b": {"model_type": "llama", "vocab_size": 64000, "max_position_embeddings": 4096}
    | {"num_hidden_layers": 60, "hidden_size": 7168, "intermediate_size": 20480}
    | {"num_attention_heads": 56, "num_key_value_heads": 8, "head_dim": 128},
}
_HUB = re.compile(r"(?:llava-hf|liuhaotian)/llava-v1\.6-(?:vicuna-)?(7b|13b|mistral-7b|34b)(?:-hf)?")
# Above what any real checkpoint has, by far: a damaged or hostile config would take all memory before its weights fail
_MOST = {
    "num_hidden_layers": 1_000,
    "hidden_size": 65_536,
    "intermediate_size": 1 << 20,
    "vocab_size": 1 << 22,
    "num_attention_heads": 4_096,
    "num_key_value_heads": 4_096,
    "head_dim": 65_536,
    "image_size": 4_096,
    "patch_size": 4_096,
}
# English in the published vocabularies; for a plan of a checkpoint whose tokenizer is not at hand
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Sizes:
    """A checkpoint's sizes, the limits of its context, and what counts its text."""

    name: str
    shape: Shape
    context: int
    """Positions of the longest prompt with its answer"""
    shared_positions: int | None
    """Positions up to which questions may share a prefix; None for all"""
    family: str
    """The prompt pack that suits its language model"""
    tokenizer: Tokenizer | None = None

    @property
    def grid(self) -> tuple[int, int]:
        return self.shape.grid

    def count(self, text: str) -> int:
        """Tokens of a text; without a tokenizer about one for every four characters."""
        if self.tokenizer is None:
            return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)
        return len(self.tokenizer.encode(text))


def sizes_of(model: str | Path, *, rope_factor: float | None = 2.0, context: int = 8192) -> Sizes:
    """The sizes of a checkpoint folder, of which only JSON and tokenizer are read, or of a name in KNOWN.

    The hub names of llava-v1.6 mean those in KNOWN: nothing is downloaded. `tiny` is the model in the package.
    rope_factor, context: as in `load_model`. Raises SfllavaError, with all names.
    """
    name, folder = str(model), Path(model).expanduser()
    known = name if name in KNOWN else match[1] if (match := _HUB.fullmatch(name)) and not folder.is_dir() else None
    tokenizer = None
    if known:
        config_dict = {"model_type": "llava_next", "text_config": KNOWN[known], "vision_config": CLIP_L_336}
    else:
        folder = Path(__file__).with_name("tiny") / "weights" if name == "tiny" else folder
        if not folder.is_dir():
            known_names = ", ".join([*KNOWN, "tiny"])
            raise SfllavaError(f"no model is called {name!r}; there are {known_names}, and checkpoint folders")
        config_dict, _ = read_config(folder)
        if any((folder / file).exists() for file in ("tokenizer.model", "tokenizer.json")):
            tokenizer = Tokenizer(folder)
    config, positions, keep = configure(config_dict, folder, rope_factor)
    text = config.text_config
    limits = [text.max_position_embeddings] if (text.rope_parameters or {}).get("rope_type") == "dynamic" else []
    limits += [text.sliding_window] if getattr(text, "sliding_window", None) else []
    chatml = known == "34b" or (tokenizer is not None and tokenizer.token_id("<|im_start|>") is not None)
    own = "mistral" if text.model_type == "mistral" else "chatml" if chatml else "vicuna"
    return Sizes(
        known or name,
        shape_of(config, keep),
        min(context, positions),
        min(limits) if limits else None,
        getattr(config, "sfllava_family", None) or own,
        tokenizer,
    )


def configure(config_dict: dict[str, Any], folder: Path, rope_factor: float | None) -> tuple[Any, int, int]:
    """(LlavaNextConfig with dynamic RoPE, positions, layers of the vision tower that are used) of a config's JSON."""
    for part in ("text_config", "vision_config"):
        if isinstance(given := config_dict.get(part), dict):
            _check_sizes(given, f"{folder / 'config.json'}: {part}")
    try:
        config: Any = LlavaNextConfig.from_dict(config_dict)
    except Exception as error:  # transformers raises many kinds for bad fields
        raise CheckpointError(f"{folder / 'config.json'}: {' '.join(str(error).split())[:300]}") from error
    text, selected, layers = config.text_config, config.vision_feature_layer, config.vision_config.num_hidden_layers
    if config.vision_feature_select_strategy != "default" or not isinstance(selected, int):
        raise CheckpointError(f"{folder / 'config.json'}: needed one vision_feature_layer without CLS")
    keep = selected if selected >= 0 else layers + 1 + selected
    if not 1 <= keep <= layers:
        raise CheckpointError(f"{folder}: vision_feature_layer {selected} is none of the tower's {layers} layers")
    positions = text.max_position_embeddings
    if rope_factor and (text.rope_parameters or {}).get("rope_type", "default") == "default":
        text.rope_parameters = {**(text.rope_parameters or {}), "rope_type": "dynamic", "factor": float(rope_factor)}
        positions = int(positions * rope_factor)
    return config, positions, keep


def _check_sizes(given: dict[str, Any], where: str) -> None:
    for field, most in _MOST.items():
        value = given.get(field)
        if isinstance(value, int) and not 1 <= value <= most:
            raise CheckpointError(f"{where}: {field} must be from 1 to {most:,}, got {value:,}")
