"""LLaVA-NeXT (llava-v1.6): CLIP ViT-L/14-336 at one image size, a two-layer projector, and Vicuna, Mistral or Yi."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from sfllava.models.base import Configuration, VisionEncoder
from sfllava.models.checkpoint import CheckpointError, check_sizes
from sfllava.models.operations import shape_of
from sfllava.models.tokenizer import Tokenizer

# CLIP's own statistics of RGB in 0..1; all LLaVA-NeXT checkpoints use them
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def pixel_values(frames: Tensor) -> Tensor:
    """Scale and normalize uint8 frames (T H W 3) for CLIP: float32 (T 3 H W) on the same device."""
    mean, std = (torch.tensor(values).to(frames.device).view(3, 1, 1) for values in (_MEAN, _STD))
    return frames.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


class LlavaNextEncoder:
    """The vision tower and projector of a network; image tiles and newline tokens are not used.

    Args:
        network: The loaded transformers model.
        grid: Number of patches (h, w) of a frame.
    """

    def __init__(self, network: Any, grid: tuple[int, int]) -> None:
        self._tower, self._projector = network.model.vision_tower, network.model.multi_modal_projector
        self._grid, self._dtype = grid, network.dtype

    @property
    def device(self) -> torch.device:
        """The device on which frames enter."""
        return self._tower.device

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (T H W 3), already resized, as a grid of patches (T h w D)."""
        pixels = pixel_values(frames).to(self._dtype)
        # the layers after the selected hidden state were cut off; 1: drops CLS
        return self._projector(self._tower(pixels).last_hidden_state[:, 1:]).unflatten(1, self._grid)


class LlavaNextFamily:
    """What is specific to LLaVA-NeXT checkpoints; see `Family`."""

    network: Any = LlavaNextForConditionalGeneration
    # newlines belong to tiles and the last norm to the pooled output; neither is used
    unused_tensors: tuple[str, ...] = ("image_newline", "post_layernorm.weight", "post_layernorm.bias")

    def configure(self, config: dict[str, Any], folder: Path, rope_factor: float | None) -> Configuration:
        """Check a config, set dynamic RoPE, and find the layers of the vision tower that are used."""
        where = folder / "config.json"
        for part in ("text_config", "vision_config"):
            if isinstance(given := config.get(part), dict):
                check_sizes(given, f"{where}: {part}")
        try:
            made: Any = LlavaNextConfig.from_dict(config)
        except Exception as error:  # transformers raises many kinds for bad fields
            raise CheckpointError(f"{where}: {' '.join(str(error).split())[:300]}") from error
        text, selected, layers = made.text_config, made.vision_feature_layer, made.vision_config.num_hidden_layers
        if made.vision_feature_select_strategy != "default" or not isinstance(selected, int):
            raise CheckpointError(f"{where}: needed one vision_feature_layer without CLS")
        # hidden state -2 of 24 layers is the output of layer 23; the rest need not be computed
        used = selected if selected >= 0 else layers + 1 + selected
        if not 1 <= used <= layers:
            raise CheckpointError(f"{folder}: vision_feature_layer {selected} is none of the tower's {layers} layers")
        positions = text.max_position_embeddings
        if rope_factor and (text.rope_parameters or {}).get("rope_type", "default") == "default":
            dynamic = {"rope_type": "dynamic", "factor": float(rope_factor)}
            text.rope_parameters = {**(text.rope_parameters or {}), **dynamic}
            positions = int(positions * rope_factor)
        return Configuration(made, shape_of(made, used), positions, made.vision_config.image_size)

    def prompt_family(self, config: Any, tokenizer: Tokenizer | None) -> str:
        """Return the name of the prompt templates that suit the language model."""
        # checkpoints made by this project name their templates; those of llava-v1.6 are known by their language model
        if own := getattr(config, "sfllava_family", None):
            return own
        if config.text_config.model_type == "mistral":
            return "mistral"
        return "chatml" if tokenizer is not None and tokenizer.token_id("<|im_start|>") is not None else "vicuna"

    def encoder(self, network: Any, configuration: Configuration) -> VisionEncoder:
        """Return the vision encoder of a loaded network, and delete the layers that are not used."""
        del network.model.vision_tower.encoder.layers[configuration.shape.vision.count :]
        return LlavaNextEncoder(network, configuration.shape.grid)

    def unused_ids(self, config: Any) -> list[int]:
        """Return the token id of the image placeholder, which is never generated."""
        return [config.image_token_id]


FAMILY = LlavaNextFamily()
