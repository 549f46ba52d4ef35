"""LLaVA-NeXT-Video: LLaVA-NeXT trained on videos, whose frames are pooled before the projector."""

from torch import Tensor
from transformers import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

from sfllava.aggregators.native import NativeEncoding
from sfllava.models.llava import LlavaEncoder, LlavaFamily


class LlavaNextVideoEncoder(LlavaEncoder):
    """LLaVA's encoder; `native` also pools the patches between the tower and the projector."""

    def encode_native(self, frames: Tensor) -> Tensor:
        """Encode uint8 frames (T H W 3), already resized, as pooled patches (T h/2 w/2 D)."""
        pooled = self.network.model.vision_resampler(self.features(frames))
        projected = self.network.model.multi_modal_projector(pooled)
        return projected.unflatten(1, (round(projected.shape[1] ** 0.5), -1))


def _native(config) -> NativeEncoding:
    side = config.vision_config.image_size // config.vision_config.patch_size // config.spatial_pool_stride
    return NativeEncoding((side, side))


FAMILY = LlavaFamily(
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoConfig,
    ("llava-hf/LLaVA-NeXT-Video-7B-hf",),
    native=_native,
    unused_tensors=("image_newline", "post_layernorm.weight", "post_layernorm.bias"),
    make_encoder=LlavaNextVideoEncoder,
)
