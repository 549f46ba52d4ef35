"""LLaVA-NeXT (llava-v1.6): CLIP ViT-L/14-336 without image tiles, and Vicuna, Mistral, Yi, Llama 3 or Qwen 1.5."""

from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from sfllava.models.llava import LlavaFamily

FAMILY = LlavaFamily(
    LlavaNextForConditionalGeneration,
    LlavaNextConfig,
    (
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava-hf/llava-v1.6-vicuna-13b-hf",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llava-v1.6-34b-hf",
        "llava-hf/llama3-llava-next-8b-hf",
        "llava-hf/llava-next-72b-hf",
        "llava-hf/llava-next-110b-hf",
    ),
    # image_newline is only for image tiles, which are not used
    unused_tensors=("image_newline", "post_layernorm.weight", "post_layernorm.bias"),
)
