"""LLaVA-OneVision: SigLIP at 384 pixels (27x27 patches), a two-layer projector, and Qwen2; also trained on videos."""

import math

from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from sfllava.aggregators.native import Native
from sfllava.models.llava import LlavaFamily


def _native(config) -> Native:
    half = math.ceil(config.vision_config.image_size // config.vision_config.patch_size / 2)
    return Native(f"bilinear_{half}x{half}", newline=True)


FAMILY = LlavaFamily(
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionConfig,
    tuple(
        f"llava-hf/llava-onevision-qwen2-{size}-{kind}-hf" for size in ("0.5b", "7b", "72b") for kind in ("si", "ov")
    ),
    native=_native,
    prompt_format="onevision",
    long_context=True,
)
