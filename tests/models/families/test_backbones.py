"""Each family with a small random checkpoint in the published layout, compared with the model in transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backbone_models import BACKBONES, QUESTIONS, SLOWFAST, sampled, visual_part
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from sfllava import Setting, load_model
from sfllava.attribution import attribution, leave_out
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.session import Session
from sfllava.models.family import normalize
from sfllava.models.tiny.random_backbones import write_random_backbone
from sfllava.sampler.images import resize_frames

NETWORKS = {
    "llava": LlavaForConditionalGeneration,
    "llava_next_video": LlavaNextVideoForConditionalGeneration,
    "llava_onevision": LlavaOnevisionForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}


def pixels_of(model, frames) -> torch.Tensor:
    size = (model.info.image_size,) * 2
    return normalize(torch.from_numpy(resize_frames(frames, size)), model.encoder._statistics)


# 1) native, compared with transformers


@pytest.mark.parametrize("clip", range(3))
@pytest.mark.parametrize("backbone", ["llava", "llava_next_video", "llava_onevision"])
def test_native_gives_the_tokens_of_transformers(backbones, backbone_folders, shared, backbone, clip):
    model = backbones(backbone)
    video = sampled(shared, clip, 5)
    plain = NETWORKS[backbone].from_pretrained(backbone_folders(backbone)).eval()
    tokens = visual_part(model, video, "native")
    before, after = model.info.prompt_ids(QUESTIONS[clip])
    pixels = pixels_of(model, video.frames)
    if backbone == "llava":
        place, images = plain.config.image_token_id, {"pixel_values": pixels}
    else:
        place, images = plain.config.video_token_id, {"pixel_values_videos": pixels[None]}
    ids = torch.tensor([[*before, *[place] * len(tokens), *after]])
    suppressed = model.language_model.suppressed_ids.tolist()
    wanted = plain.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False,
        suppress_tokens=suppressed, **images,
    )[0, ids.shape[1] :]  # fmt: skip
    answer = model.answer(tokens, [QUESTIONS[clip]], max_new_tokens=20)[0]
    assert list(answer.token_ids) == model.language_model.until_eos(wanted.tolist())
    assert tokens.count == Setting(5, "native").for_model(model.info).token_count(*model.info.grid)


def qwen_inputs(plain, model, video, question):
    """The inputs that the processor of the family makes of a video: token ids, token types, patches and sizes."""
    setting = Setting(len(video.frames), "native").for_model(model.info)
    before, after = model.info.prompt_ids(question)
    config, vision = plain.config, plain.config.vision_config
    pixels = normalize(
        torch.from_numpy(resize_frames(video.frames, (model.info.image_size,) * 2)),
        model.encoder._configuration.statistics,
    )
    if len(pixels) % 2:
        pixels = torch.cat([pixels, pixels[-1:]])
    side, patch = 24, vision.patch_size
    parts = pixels.reshape(len(pixels) // 2, 2, 3, side // 2, 2, patch, side // 2, 2, patch)
    patches = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3 * 2 * patch * patch)
    images = len(pixels) // 2
    pads = [config.vision_start_token_id, *[config.video_token_id] * 144, config.vision_end_token_id]
    if config.model_type == "qwen3_vl":
        times = np.append(video.pts_seconds, video.pts_seconds[-1:] if len(video.frames) % 2 else [])
        middle = []
        for first, last in times.reshape(-1, 2):
            middle += [*model.info.tokenizer.encode(f"<{(first + last) / 2:.1f} seconds>"), *pads]
    else:
        middle = [pads[0], *[config.video_token_id] * 144 * images, pads[-1]]
    ids = torch.tensor([[*before, *middle, *after]])
    types = (ids == config.video_token_id).int() * 2
    sizes = torch.tensor([[images, side, side]])
    return setting, ids, types, patches, sizes


@pytest.mark.parametrize("clip", range(3))
@pytest.mark.parametrize("backbone", ["qwen2_5_vl", "qwen3_vl"])
def test_native_of_qwen_gives_the_first_logits_of_transformers(backbones, backbone_folders, shared, backbone, clip):
    """After the first token, transformers may use other positions; the rest is compared with a loop without a cache."""
    model = backbones(backbone)
    video = sampled(shared, clip, 5)
    plain = NETWORKS[backbone].from_pretrained(backbone_folders(backbone)).eval()
    setting, ids, types, patches, sizes = qwen_inputs(plain, model, video, QUESTIONS[clip])
    spacing = (video.pts_seconds[-1] - video.pts_seconds[0]) / (len(video.frames) - 1)
    more = {"second_per_grid_ts": torch.tensor([spacing * 2])} if backbone == "qwen2_5_vl" else {}
    with torch.no_grad():
        wanted = plain(
            input_ids=ids, pixel_values_videos=patches, video_grid_thw=sizes, mm_token_type_ids=types, **more
        ).logits[0, -1]
    positions, _ = plain.model.get_rope_index(ids, types, video_grid_thw=sizes, **more)
    tokens = model.tokens(setting, model.encode(setting.images(video.frames)), video.pts_seconds)
    before, after = model.info.prompt_ids(QUESTIONS[clip])
    inputs = model.language_model.prompt(before, tokens, after)
    assert torch.equal(inputs.positions, positions)
    with torch.no_grad():
        got = model.language_model.network.lm_head(model.language_model.run(inputs)[0, -1])
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    answer = model.answer(tokens, [QUESTIONS[clip]], max_new_tokens=20)[0]
    assert list(answer.token_ids) == plain_loop(model, inputs, 20)


@torch.no_grad()
def plain_loop(model, inputs, new: int) -> list[int]:
    """Generate without a cache: each step runs the whole prompt and answer."""
    language_model, ids = model.language_model, []
    embeds, positions, deepstack = inputs.embeds, inputs.positions, inputs.deepstack
    for step in range(new):
        given = type(inputs)(embeds, positions, 0, deepstack)
        token = int(language_model.logits(language_model.run(given)[0, -1]).argmax())
        if token in language_model.eos_ids:
            break
        ids.append(token)
        embeds = torch.cat([embeds, language_model.embed([token])[None]], 1)
        positions = torch.cat([positions, torch.full_like(positions[..., :1], inputs.end + step)], -1)
        if deepstack is not None:
            deepstack = torch.cat([deepstack, torch.zeros_like(deepstack[:, :1])], 1)
    return ids


# 2) SlowFast


@pytest.mark.parametrize("backbone", BACKBONES)
def test_answers_with_a_shared_prefix_equal_those_of_one_question_at_a_time(backbones, shared, backbone):
    model = backbones(backbone)
    tokens = visual_part(model, sampled(shared, 0, 6), SLOWFAST)
    together = model.answer(tokens, QUESTIONS, max_new_tokens=16)
    alone = model.answer(tokens, QUESTIONS, max_new_tokens=16, share_prefix=False)
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    streamed = [list(model.stream(tokens, question, max_new_tokens=16)) for question in QUESTIONS]
    assert [list(a.token_ids) for a in together] == streamed
    # two videos in one batch
    other = visual_part(model, sampled(shared, 1, 4), SLOWFAST)
    both = model.answer_batch([(tokens, QUESTIONS), (other, QUESTIONS[:2])], max_new_tokens=16)
    assert [a.token_ids for a in both[0]] == [a.token_ids for a in together]
    assert [a.token_ids for a in both[1]] == [
        a.token_ids for a in model.answer(other, QUESTIONS[:2], max_new_tokens=16, share_prefix=False)
    ]


@pytest.mark.parametrize("backbone", ["llava", "qwen2_5_vl"])
def test_past_the_limit_of_sharing(backbone_folders, shared, backbone, tmp_path):
    """LLaVA-1.5 shares a prefix up to 4,096 positions; a sliding window limits sharing in any family."""
    if backbone == "llava":
        model, name = load_model(backbone_folders(backbone)), "native"  # 8 x 576 tokens
    else:
        window = {"sliding_window": 300, "use_sliding_window": True, "max_window_layers": 0}
        model, name = load_model(write_random_backbone(tmp_path, backbone, text=window)), "native"
    tokens = visual_part(model, sampled(shared, 0, 8), name)
    assert len(tokens) > model.language_model.shared_limit
    together = model.answer(tokens, QUESTIONS[:2], max_new_tokens=6)
    alone = model.answer(tokens, QUESTIONS[:2], max_new_tokens=6, share_prefix=False)
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]


# 3) single frames


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_frame_alone_is_encoded_as_in_a_batch(backbones, shared, backbone):
    model, video = backbones(backbone), sampled(shared, 2, 5)
    whole = model.encode(video.frames)
    assert whole.shape[:3] == (5, *model.info.grid)
    for batch in (1, 2):
        torch.testing.assert_close(model.encode(video.frames, batch=batch), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.encode(video.frames[3:4]), whole[3:4], atol=1e-5, rtol=1e-5)


# 4) attribution, explorer, sizes


@pytest.mark.parametrize("backbone", BACKBONES)
def test_attribution_maps_and_leaving_frames_out(backbones, shared, backbone):
    model, video = backbones(backbone), sampled(shared, 0, 4)
    for name in (SLOWFAST, "native"):
        found = attribution.attribute(model, video, Setting(4, name), "what is it?", max_new_tokens=4)
        tokens = visual_part(model, video, name)
        assert found.attention.shape[1] == tokens.count
        in_frames = sum(found.heat(source.name).sum() for source in found.sources)
        assert 0 < in_frames <= float(found.attention.mean(0).sum()) + 1e-5 <= 1.0001
        parts = list(leave_out.removable_parts(found))
        for part in parts[:2]:
            assert [p for p, _ in leave_out.leave_out(model, found, visual_grid(model, video, name), [part])] == [part]


def visual_grid(model, video, name):
    setting = Setting(len(video.frames), name).for_model(model.info)
    return model.encode(setting.images(video.frames))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_explorer_gives_the_answers_of_the_model(backbones, shared, backbone):
    model = backbones(backbone)
    session = Session(model, FeatureCache(model))
    path = sorted((shared / "clips").glob("*.mp4"))[0]
    for name in ("native", SLOWFAST, "slowfast-slow_3frms_spatial_1d_max_pool-fast_1x1"):
        reply = session.answer(path, Setting(4, name), QUESTIONS[0], 8)
        tokens = visual_part(model, sampled(shared, 0, 4), name)
        assert list(reply.token_ids) == list(model.answer(tokens, QUESTIONS[:1], max_new_tokens=8)[0].token_ids)
        assert reply.visual_tokens == tokens.count
    assert session.replies[-1].encoded_frames == 0 and session.replies[-1].reused_tokens > 0
