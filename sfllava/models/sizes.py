"""The sizes of a checkpoint by its config alone: enough to estimate the cost of a run without weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.models.checkpoint import CLIP_L_336, read_config
from sfllava.models.families import find_family
from sfllava.models.language_model import sharing_limits
from sfllava.models.operations import Shape
from sfllava.models.tokenizer import Tokenizer
from sfllava.types import SfllavaError

_VICUNA = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096}
# The language models of llava-v1.6, from their configs; all use CLIP_L_336 up to its last layer but one
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
# Of English in the published vocabularies; for checkpoints without a local tokenizer
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checkpoint, the limits of its context, and its tokenizer.

    Attributes:
        name: A name in KNOWN, or the folder as given.
        shape: The sizes that the cost of a run depends on.
        context: Number of positions of the longest prompt with its answer.
        shared_positions: Number of positions up to which questions may share a prefix; None for all.
        family: The prompt templates that suit the language model.
        tokenizer: None where it is not on this machine.
    """

    name: str
    shape: Shape
    context: int
    shared_positions: int | None
    family: str
    tokenizer: Tokenizer | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches (h, w) of a frame."""
        return self.shape.grid

    def count(self, text: str) -> int:
        """Count the tokens of a text; without a tokenizer, estimate one per four characters."""
        if self.tokenizer is None:
            return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)
        return len(self.tokenizer.encode(text))


def sizes_of(model: str | Path, *, rope_factor: float | None = 2.0, context: int = 8192) -> Sizes:
    """Find the sizes of a checkpoint, without a download.

    Args:
        model: A checkpoint folder, of which only JSON and tokenizer are read; a name in KNOWN; a hub name of
            llava-v1.6; or `tiny`, the model in the package.
        rope_factor: As in `load_model`.
        context: As in `load_model`.

    Raises:
        SfllavaError: There is no such model; the message lists the names.
        CheckpointError: The config of the folder cannot be used.
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
            raise SfllavaError(f"no model is called {name!r}; choose from {known_names}, or give a checkpoint folder")
        config_dict, _ = read_config(folder)
        if any((folder / file).exists() for file in ("tokenizer.model", "tokenizer.json")):
            tokenizer = Tokenizer(folder)
    family = find_family(config_dict, folder)
    made = family.configure(config_dict, folder, rope_factor)
    limits = sharing_limits(made.config.text_config)
    own = "chatml" if known == "34b" else family.prompt_family(made.config, tokenizer)
    return Sizes(
        known or name,
        made.shape,
        min(context, made.positions),
        min(limits) if limits else None,
        own,
        tokenizer,
    )
