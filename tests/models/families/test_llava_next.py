from __future__ import annotations

import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaNextForConditionalGeneration

from sfllava.models.load import load_model


def test_features_are_transformers_own(models, checkpoints, frames):
    """PIL and CLIP's processor frame by frame, all layers, hidden state -2 without CLS, then the projector."""
    model = models("vicuna", "transformers")
    plain = LlavaNextForConditionalGeneration.from_pretrained(checkpoints("vicuna", "transformers"))
    processor = CLIPImageProcessor(size={"height": 336, "width": 336}, do_center_crop=False)
    images = [Image.fromarray(frame).resize((336, 336)) for frame in frames[:6]]
    pixels = torch.cat([processor(image, return_tensors="pt")["pixel_values"] for image in images])
    with torch.no_grad():
        hidden = plain.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        wanted = plain.model.multi_modal_projector(hidden).reshape(6, 24, 24, -1)
    got = model.encode(frames[:6])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert len(model.language_model.network.model.vision_tower.encoder.layers) == 2, (
        "the layer after hidden state -2 is not used"
    )
    torch.testing.assert_close(model.encode(frames[:6], batch=1), got, atol=1e-5, rtol=1e-5)


def test_rope_is_dynamic_with_factor_two(models, checkpoints):
    assert models().language_model.network.config.text_config.rope_parameters == {
        "rope_type": "dynamic",
        "factor": 2.0,
        "rope_theta": 10000.0,
    }
    assert models("mistral").info.context == 8192 and models().info.context == 8192
    plain = load_model(checkpoints(), rope_factor=None)
    assert plain.info.context == 4096 and plain.language_model.shared_positions is None
    assert load_model(checkpoints("mistral"), context=32768).info.context == 32768
