"""LLaVA-1.5: CLIP ViT-L/14-336, a two-layer projector, and Vicuna."""

from transformers import LlavaConfig, LlavaForConditionalGeneration

from sfllava.models.llava import LlavaFamily

FAMILY = LlavaFamily(
    LlavaForConditionalGeneration, LlavaConfig, ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf")
)
