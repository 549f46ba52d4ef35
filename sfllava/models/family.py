"""The interface of a model family: one file in sfllava/models/families, named after its `model_type`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import Aggregator, detailed_frames, image_count
from sfllava.aggregators.native import NativeEncoding
from sfllava.aggregators.tower import PatchGrid
from sfllava.models.checkpoint import CheckpointError, read_json
from sfllava.models.operations import Shape
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.visual_tokens import VisualTokens

# Mean and standard deviation of RGB in 0..1, as in the training of CLIP
CLIP_STATISTICS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
POSITIONS = ("time", "consecutive")


@dataclass(frozen=True)
class LoadOptions:
    """How to use a checkpoint. A family ignores the options that do not apply to it.

    Attributes:
        rope_factor: Factor of dynamic NTK RoPE. None keeps the checkpoint's own RoPE, as do families whose checkpoints
            were trained on long prompts.
        positions: For models with M-RoPE. "time": positions of a visual token are its time, row and column.
            "consecutive": visual tokens are counted like text.
        timestamps: Qwen only: whether to write text such as "<1.5 seconds>" before the tokens of each frame.
    """

    rope_factor: float | None = 2.0
    positions: str = "time"
    timestamps: bool = False


@dataclass(frozen=True)
class VideoText:
    """How much text a family writes between visual tokens, as upper bounds.

    Attributes:
        block: Token ids around a block of visual tokens.
        timestamp: Token ids of a timestamp.
        with_native: Whether `native` has a timestamp before each image.
        with_others: Whether other aggregators have one before each frame.
    """

    block: int = 0
    timestamp: int = 0
    with_native: bool = False
    with_others: bool = False

    def rows(self, aggregator: Any, frames: int) -> int:
        """Count the token ids for `frames` frames."""
        native = isinstance(aggregator, NativeEncoding)
        if not (self.with_native if native else self.with_others):
            return self.block
        blocks = image_count(aggregator, frames) if native else frames + len(detailed_frames(aggregator, frames))
        return blocks * (self.block + self.timestamp)


@dataclass(frozen=True)
class Configuration:
    """A checked config, and what follows from it.

    Attributes:
        config: The config object of transformers.
        shape: The sizes of the model.
        positions: Number of positions that its rotary embedding supports.
        image_size: Height and width of a frame in pixels.
        native: The aggregator that `native` stands for.
        context: Maximum number of positions of a prompt and its answer, unless the user sets another.
        statistics: Mean and standard deviation of RGB in 0..1, used to normalize pixels.
        options: How to use the checkpoint.
        video_text: How much text the family writes between visual tokens.
        tower_outputs: What `VisionEncoder.with_outputs` can return besides the features.
    """

    config: Any
    shape: Shape
    positions: int
    image_size: int
    native: Aggregator
    context: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    options: LoadOptions = field(default_factory=LoadOptions)
    video_text: VideoText = field(default_factory=VideoText)
    tower_outputs: tuple[str, ...] = ()


class VisionEncoder(Protocol):
    """Encodes frames as a grid of patches, and makes the visual part of a prompt from an aggregated grid."""

    @property
    def device(self) -> torch.device:
        """The device that takes the frames."""
        ...

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode one batch of uint8 frames (T H W 3), already resized, as a grid of patches.

        Returns:
            (T h w D), or (T h w (1+S)*D) with S DeepStack feature sets after the main one.
        """
        ...

    def encode_native(self, frames: Tensor) -> Tensor:
        """Encode frames in the family's own way; used where `Configuration.native` is a `NativeEncoding`."""
        ...

    def with_outputs(self, frames: Tensor, needs: tuple[str, ...]) -> PatchGrid:
        """Encode frames as in `__call__`, with outputs of the tower; used where `Configuration.tower_outputs` has them.

        Args:
            frames: uint8 (T H W 3), already resized.
            needs: Names of `TOWER_OUTPUTS`; only these are computed.
        """
        ...

    def visual_tokens(self, aggregator: Any, grid: Any, seconds: np.ndarray | None) -> VisualTokens:
        """Make the visual part of a prompt.

        Args:
            aggregator: (T h w D) -> (N D).
            grid: The encoded frames.
            seconds: (T) Times of the sampled frames; None if unknown.
        """
        ...


class Family(Protocol):
    """A model family. Its file exposes one object, `FAMILY`, with everything specific to the family.

    Attributes:
        network: The transformers class to load; it needs `lm_head` and `model.language_model`.
        unused_tensors: Suffixes of the names of tensors that a checkpoint may lack.
        checkpoints: Names of published checkpoints on the hub, for messages and tables.
    """

    network: Any
    unused_tensors: tuple[str, ...]
    checkpoints: tuple[str, ...]

    def configure(self, config: dict[str, Any], folder: Path, options: LoadOptions) -> Configuration:
        """Check a config before anything is built.

        Args:
            config: The JSON of the config.
            folder: The checkpoint folder. Its preprocessor is checked too.
            options: How to use the checkpoint.

        Raises:
            CheckpointError: The config cannot be used.
        """
        ...

    def prompt_family(self, config: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
        """Return the name of the prompt templates that suit the language model, None if unknown."""
        ...

    def encoder(self, network: Any, configuration: Configuration, tokenizer: Tokenizer) -> VisionEncoder:
        """Return the vision encoder of a loaded network."""
        ...

    def unused_ids(self, config: Any) -> list[int]:
        """Return the token ids that are never generated, in addition to the tokenizer's placeholders."""
        ...


def normalize(frames: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Scale uint8 frames (T H W 3) to 0..1 and normalize them: float32 (T 3 H W) on the same device."""
    mean, std = (torch.tensor(values).to(frames.device).view(3, 1, 1) for values in statistics)
    return frames.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


def from_dict(config_class: Any, config: dict[str, Any], folder: Path) -> Any:
    """Make a config object; raise CheckpointError, with a one-line message, if transformers rejects the fields."""
    try:
        return config_class.from_dict(config)
    except Exception as error:  # transformers raises many kinds of errors for bad fields
        raise CheckpointError(f"{folder / 'config.json'}: {' '.join(str(error).split())[:300]}") from error


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """Read the preprocessor config of a checkpoint; empty if its folder has none."""
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        if (folder / name).is_file():
            return read_json(folder / name)
    if (folder / "processor_config.json").is_file():
        return read_json(folder / "processor_config.json").get("image_processor") or {}
    return {}


def read_statistics(
    preprocessor: dict[str, Any], folder: Path, default: tuple[tuple[float, ...], tuple[float, ...]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation in a preprocessor config, or the defaults if it has none."""
    found = []
    for name, default_values in zip(("image_mean", "image_std"), default):
        values = preprocessor.get(name, default_values)
        numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
        if not numbers or len(values) != 3 or (name == "image_std" and min(values) <= 0):
            kind = "positive numbers" if name == "image_std" else "numbers"
            raise CheckpointError(f"{folder}: the preprocessor's {name} must be three {kind}, got {values!r}")
        found.append(tuple(float(v) for v in values))
    return found[0], found[1]
