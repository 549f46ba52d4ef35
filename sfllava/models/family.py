"""The interface of a family of backbones: one file of sfllava/models/families, named after `model_type`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import Aggregator
from sfllava.models.checkpoint import CheckpointError, read_json
from sfllava.models.operations import Shape
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.visual_tokens import VisualTokens

POSITIONS = ("time", "consecutive")


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is to be used, as far as its family has a choice.

    Attributes:
        rope_factor: Factor of dynamic NTK RoPE, None for the checkpoint's own. Families whose checkpoints were trained
            on long prompts ignore it.
        positions: For three-axis positions (M-RoPE): "time" places each token by its time, row and column;
            "consecutive" counts tokens as if they were text.
        timestamps: Whether a text such as "<1.5 seconds>" comes before the tokens of each frame.
    """

    rope_factor: float | None = 2.0
    positions: str = "time"
    timestamps: bool = False


@dataclass(frozen=True)
class Configuration:
    """A checked config.

    Attributes:
        config: The config object of transformers.
        shape: The sizes of the model.
        positions: Number of positions that its rotary embedding supports.
        image_size: Height and width of a frame in pixels.
        native: The aggregator that `native` stands for.
        context: Number of positions of the longest prompt with its answer, unless a user asks for another.
        statistics: Mean and standard deviation of RGB in 0..1, with which pixels are normalized.
        options: How the checkpoint is to be used.
    """

    config: Any
    shape: Shape
    positions: int
    image_size: int
    native: Aggregator
    context: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    options: LoadOptions = field(default_factory=LoadOptions)


class VisionEncoder(Protocol):
    """The vision tower and projector of a family, and how pooled patches become the visual part of a prompt."""

    @property
    def device(self) -> torch.device:
        """The device on which frames enter."""
        ...

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode one batch of uint8 frames (T H W 3), already resized, as a grid of patches (T h w D)."""
        ...

    def encode_native(self, frames: Tensor) -> Tensor:
        """Encode frames in the family's own way, if `Configuration.native` makes images of them."""
        ...

    def visual_tokens(self, aggregator: Any, grid: Tensor, seconds: np.ndarray | None) -> VisualTokens:
        """Make the visual part of a prompt.

        Args:
            aggregator: (T h w D) -> (N D).
            grid: What was encoded.
            seconds: (T) The times of the sampled frames; None if unknown.
        """
        ...


class Family(Protocol):
    """A family of backbones. Its file exposes one object, `FAMILY`, with all that is specific to the family.

    Attributes:
        network: The transformers class to load; it has `lm_head` and `model.language_model`.
        unused_tensors: Suffixes of the names of tensors that a checkpoint may lack.
        checkpoints: Checkpoints of the hub to name in messages and tables.
    """

    network: Any
    unused_tensors: tuple[str, ...]
    checkpoints: tuple[str, ...]

    def configure(self, config: dict[str, Any], folder: Path, options: LoadOptions) -> Configuration:
        """Check a config before anything is built.

        Args:
            config: The JSON of the config.
            folder: The checkpoint folder, whose preprocessor is checked too; its name is in error messages.
            options: How the checkpoint is to be used.

        Raises:
            CheckpointError: The config cannot be used.
        """
        ...

    def prompt_family(self, config: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
        """Return the name of the prompt templates that suit the language model, None if it cannot be told."""
        ...

    def encoder(self, network: Any, configuration: Configuration, tokenizer: Tokenizer) -> VisionEncoder:
        """Return the vision encoder of a loaded network."""
        ...

    def unused_ids(self, config: Any) -> list[int]:
        """Return token ids that are never generated, in addition to the tokenizer's placeholders."""
        ...


def normalize(frames: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Scale and normalize uint8 frames (T H W 3): float32 (T 3 H W) on the same device."""
    mean, std = (torch.tensor(values).to(frames.device).view(3, 1, 1) for values in statistics)
    return frames.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


def from_dict(config_class: Any, config: dict[str, Any], folder: Path) -> Any:
    """Make a config object; raise CheckpointError with one line where transformers refuses the fields."""
    try:
        return config_class.from_dict(config)
    except Exception as error:  # transformers raises many kinds for bad fields
        raise CheckpointError(f"{folder / 'config.json'}: {' '.join(str(error).split())[:300]}") from error


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """Read how images are prepared for a checkpoint; empty where its folder does not say."""
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (folder / name).is_file():
            return read_json(folder / name)
    if (folder / "processor_config.json").is_file():
        return read_json(folder / "processor_config.json").get("image_processor") or {}
    return {}


def read_statistics(
    preprocessor: dict[str, Any], folder: Path, default: tuple[tuple[float, ...], tuple[float, ...]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of a preprocessor, or the default where it has none."""
    found = []
    for name, usual in zip(("image_mean", "image_std"), default):
        values = preprocessor.get(name, usual)
        numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
        if not numbers or len(values) != 3 or (name == "image_std" and min(values) <= 0):
            raise CheckpointError(f"{folder}: the preprocessor's {name} must be three numbers, got {values!r}")
        found.append(tuple(float(v) for v in values))
    return found[0], found[1]
