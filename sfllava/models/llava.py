"""What the LLaVA families share: a vision tower, a two-layer projector, and a language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.base import Aggregator, token_parts
from sfllava.aggregators.native import Native
from sfllava.aggregators.tower import TOWER_OUTPUTS, PatchGrid
from sfllava.models.checkpoint import CheckpointError, check_sizes
from sfllava.models.family import (
    CLIP_STATISTICS,
    Configuration,
    LoadOptions,
    from_dict,
    normalize,
    read_preprocessor,
    read_statistics,
)
from sfllava.models.operations import Layers, Shape
from sfllava.models.prompt_formats import find_format
from sfllava.models.text_layers import embedding_parameters, text_layers
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.tower_outputs import last_layer_outputs
from sfllava.models.visual_tokens import VisualTokens

# Mean and standard deviation of RGB in 0..1, as in the training of the tower; for checkpoints without a preprocessor
_STATISTICS = {
    "clip_vision_model": CLIP_STATISTICS,
    "siglip_vision_model": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
# Longest prompt, in positions, that the published code answers
_CONTEXT = 8192


class LlavaEncoder:
    """The vision tower and projector of a network; frames are never split into tiles.

    Args:
        network: The loaded transformers model.
        configuration: Its checked config.
    """

    def __init__(self, network: Any, configuration: Configuration) -> None:
        self.network, self._grid = network, configuration.shape.grid
        self._tower, self._first = network.model.vision_tower, configuration.shape.cls_tokens
        self._statistics = configuration.statistics

    @property
    def device(self) -> torch.device:
        """The device that takes the frames."""
        return self._tower.device

    def features(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (T H W 3), already resized, with the tower only: (T h*w C), without CLS."""
        pixels = normalize(frames, self._statistics).to(self.network.dtype)
        # LlavaFamily.encoder deleted the layers after the selected one, so the last hidden state is the selected one
        return self._tower(pixels).last_hidden_state[:, self._first :]

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (T H W 3), already resized, as a grid of patches (T h w D)."""
        return self.network.model.multi_modal_projector(self.features(frames)).unflatten(1, self._grid)

    def encode_native(self, frames: Tensor) -> Tensor:
        """Encode frames in the same way as `__call__`."""
        return self(frames)

    def with_outputs(self, frames: Tensor, needs: tuple[str, ...]) -> PatchGrid:
        """Encode frames as in `__call__`, with the attention or keys of the tower's last used layer.

        Args:
            frames: uint8 (T H W 3), already resized.
            needs: Names of `TOWER_OUTPUTS`.
        """
        layer = self._tower.encoder.layers[-1].self_attn
        grid, outputs = last_layer_outputs(layer, self._first, needs, lambda: self(frames))
        return PatchGrid(grid, **{name: value.unflatten(1, self._grid) for name, value in outputs.items()})

    def visual_tokens(self, aggregator: Any, grid: Any, seconds: np.ndarray | None) -> VisualTokens:
        """Aggregate a grid; fill in the model's newline embedding if the aggregator has a newline."""
        parts = dict(token_parts(aggregator, grid))
        if getattr(aggregator, "newline", False):
            parts["newline"] = self.network.model.image_newline[None].to(grid.device, grid.dtype)
        return VisualTokens(torch.cat(list(parts.values())))


@dataclass(frozen=True)
class LlavaFamily:
    """A LLaVA family; see `Family`.

    Attributes:
        network: The transformers class of the model.
        config_class: The transformers class of the config.
        checkpoints: Names of published checkpoints on the hub.
        native: config -> the aggregator that `native` stands for.
        unused_tensors: Suffixes of the names of tensors that a checkpoint may lack.
        prompt_format: Name of the prompt templates, if all checkpoints of the family use the same ones.
        long_context: Whether the checkpoints were trained on long prompts; if so, their RoPE is not changed.
        make_encoder: (network, configuration) -> the vision encoder.
    """

    network: Any
    config_class: Any
    checkpoints: tuple[str, ...]
    native: Callable[[Any], Aggregator] = lambda config: Native()
    # the last norm of the tower applies only to features that are not used
    unused_tensors: tuple[str, ...] = ("post_layernorm.weight", "post_layernorm.bias")
    prompt_format: str | None = None
    long_context: bool = False
    make_encoder: Callable[[Any, Configuration], LlavaEncoder] = LlavaEncoder

    def configure(self, config: dict[str, Any], folder: Path, options: LoadOptions) -> Configuration:
        """Check a config, set dynamic RoPE, and find which layers of the vision tower are used."""
        where = folder / "config.json"
        for part in ("text_config", "vision_config"):
            if isinstance(given := config.get(part), dict):
                check_sizes(given, f"{where}: {part}")
        parsed: Any = from_dict(self.config_class, config, folder)
        tower, text = parsed.vision_config, parsed.text_config
        if tower.model_type not in _STATISTICS:
            known = " or ".join(_STATISTICS)
            raise CheckpointError(f"{where}: needed a vision tower of type {known}, got {tower.model_type!r}")
        _check_selection(parsed, tower, where)
        used = _used_layers(parsed.vision_feature_layer, tower.num_hidden_layers, folder)
        preprocessor = read_preprocessor(folder)
        _check_image_size(preprocessor, tower.image_size, folder)
        positions = text.max_position_embeddings
        default_rope = (text.rope_parameters or {}).get("rope_type", "default") == "default"
        if options.rope_factor and default_rope and not self.long_context:
            dynamic = {"rope_type": "dynamic", "factor": float(options.rope_factor)}
            text.rope_parameters = {**(text.rope_parameters or {}), **dynamic}
            positions = int(positions * options.rope_factor)
        return Configuration(
            parsed, _shape(parsed, used), positions, tower.image_size, self.native(parsed),
            positions if self.long_context else _CONTEXT,
            read_statistics(preprocessor, folder, _STATISTICS[tower.model_type]),
            replace(options, positions="time", timestamps=False), tower_outputs=TOWER_OUTPUTS,
        )  # fmt: skip

    def prompt_family(self, config: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
        """Return the name of the prompt templates that suit the language model."""
        # the config of the model in this package names its templates
        named = getattr(config, "sfllava_family", None)
        return named or self.prompt_format or find_format(config.text_config, folder, tokenizer)

    def encoder(self, network: Any, configuration: Configuration, tokenizer: Tokenizer) -> LlavaEncoder:
        """Return the vision encoder of a loaded network, after deleting the layers that are not used."""
        tower = network.model.vision_tower
        del tower.encoder.layers[configuration.shape.vision.count :]
        if configuration.config.vision_config.model_type == "siglip_vision_model":
            tower.post_layernorm = torch.nn.Identity()  # the features are those before the last norm
        return self.make_encoder(network, configuration)

    def unused_ids(self, config: Any) -> list[int]:
        """Return the token ids of the image and video placeholders, which are never generated."""
        ids = (getattr(config, name, None) for name in ("image_token_id", "video_token_id"))
        return [i for i in ids if i is not None]


def _check_selection(config: Any, tower: Any, where: Path) -> None:
    """Check that the selected features are the patches of one layer, without CLS."""
    clip, strategy = tower.model_type == "clip_vision_model", config.vision_feature_select_strategy
    if not isinstance(config.vision_feature_layer, int):
        raise CheckpointError(f"{where}: needed one vision_feature_layer, got {config.vision_feature_layer!r}")
    if strategy != ("default" if clip else "full"):
        need = "default, which drops CLS" if clip else "full, since this tower has no CLS"
        raise CheckpointError(f"{where}: vision_feature_select_strategy must be {need}, got {strategy!r}")
    if not isinstance(tower.image_size, int) or not isinstance(tower.patch_size, int):
        raise CheckpointError(f"{where}: needed one number each for image_size and patch_size of the vision tower")
    if tower.image_size < tower.patch_size:
        raise CheckpointError(f"{where}: image_size {tower.image_size} is below patch_size {tower.patch_size}")


def _used_layers(selected: int, layers: int, folder: Path) -> int:
    """Return how many layers are used: of 24 layers, hidden state -2 is the output of layer 23."""
    used = selected if selected >= 0 else layers + 1 + selected
    if not 1 <= used <= layers:
        raise CheckpointError(f"{folder}: vision_feature_layer is {selected}, but the tower has {layers} layers")
    return used


def _check_image_size(preprocessor: dict[str, Any], size: int, folder: Path) -> None:
    """Check that the preprocessor makes images of the size that the tower takes."""
    given = preprocessor.get("crop_size") or preprocessor.get("size") or {}
    found = given if isinstance(given, int) else next((v for k, v in given.items() if k != "width"), size)
    if found != size:
        raise CheckpointError(
            f"{folder}: the preprocessor makes images of {found} pixels, but the vision tower takes {size}; are these "
            "files from two checkpoints?"
        )


def _shape(config: Any, used: int) -> Shape:
    """Return the sizes of a model that uses the first `used` layers of its vision tower."""
    tower = config.vision_config
    width, inner, heads = tower.hidden_size, tower.intermediate_size, tower.num_attention_heads
    patches = tower.image_size // tower.patch_size
    clip = tower.model_type == "clip_vision_model"
    # biases of the four attention matrices and the two feed-forward matrices; then two norms with biases
    vectors = 4 * width + inner + width + 4 * width
    vision = Layers(used, width, inner, heads, heads, width // heads, False, vectors)
    language = text_layers(config.text_config)
    out = language.width
    convolution = 3 * tower.patch_size**2 * width
    # outside the layers, CLIP has CLS, its position, and a norm before and after; SigLIP has a bias of the convolution
    around = width + width + 4 * width if clip else width
    projector = ((width, out), (out, out))
    newline = out if config.model_type in ("llava_next", "llava_next_video", "llava_onevision") else 0
    rest = embedding_parameters(config) + convolution + patches**2 * width + around + newline
    rest += sum(inputs * outputs + outputs for inputs, outputs in projector)
    return Shape(
        language, vision, config.text_config.vocab_size, (patches, patches), tower.patch_size,
        cls_tokens=int(clip), projector=projector, rest=rest,
    )  # fmt: skip
