"""Each family with a small random checkpoint in the published layout, compared with the model in transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlavaForConditionalGeneration,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from sfllava import Question, Setting, load_model, read_video
from sfllava.aggregators.naming import parse_aggregation
from sfllava.attribution import attribution, leave_out
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.session import Session
from sfllava.models.family import normalize
from sfllava.models.qwen_vl import frame_times
from sfllava.models.tiny.random_backbones import CHAT_TEMPLATES, write_random_backbone
from sfllava.models.visual_tokens import VisualTokens, aggregate
from sfllava.prompts import chat_prompt, pack_prompt
from sfllava.sampler.images import resize_frames

BACKBONES = ("llava", "llava_next_video", "llava_onevision", "qwen2_5_vl", "qwen3_vl")
NETWORKS = {
    "llava": LlavaForConditionalGeneration,
    "llava_next_video": LlavaNextVideoForConditionalGeneration,
    "llava_onevision": LlavaOnevisionForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}
QUESTIONS = [
    Question("what is it?"),
    Question("where does it take place, and what do the people and animals in the frames do there?"),
    Question("how many?"),
]
SLOWFAST = "slowfast-slow_3frms_spatial_1d_max_pool-fast_2x3"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function from the name of a backbone to its checkpoint folder, which is written once."""
    root, known = tmp_path_factory.mktemp("backbones"), {}

    def get(backbone: str):
        if backbone not in known:
            known[backbone] = write_random_backbone(root / backbone, backbone)
        return known[backbone]

    return get


@pytest.fixture(scope="module")
def backbones(folders):
    """A function from the name of a backbone to its model, which is loaded once."""
    known = {}

    def get(backbone: str):
        if backbone not in known:
            known[backbone] = load_model(folders(backbone))
        return known[backbone]

    return get


def sampled(shared, clip: int, frames: int):
    return read_video(sorted((shared / "clips").glob("*.mp4"))[clip], frames)


def visual_part(model, video, name: str) -> VisualTokens:
    setting = Setting(len(video.frames), name).for_model(model.info)
    return model.tokens(setting, model.encode(setting.images(video.frames)), video.pts_seconds)


def pixels_of(model, frames) -> torch.Tensor:
    size = (model.info.image_size,) * 2
    return normalize(torch.from_numpy(resize_frames(frames, size)), model.encoder._statistics)


# 1) native, compared with transformers


@pytest.mark.parametrize("clip", range(3))
@pytest.mark.parametrize("backbone", ["llava", "llava_next_video", "llava_onevision"])
def test_native_gives_the_tokens_of_transformers(backbones, folders, shared, backbone, clip):
    model = backbones(backbone)
    video = sampled(shared, clip, 5)
    plain = NETWORKS[backbone].from_pretrained(folders(backbone)).eval()
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
def test_native_of_qwen_gives_the_first_logits_of_transformers(backbones, folders, shared, backbone, clip):
    """After the first token, transformers may use other positions; the rest is compared with a loop without a cache."""
    model = backbones(backbone)
    video = sampled(shared, clip, 5)
    plain = NETWORKS[backbone].from_pretrained(folders(backbone)).eval()
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
def test_past_the_limit_of_sharing(folders, shared, backbone, tmp_path):
    """LLaVA-1.5 shares a prefix up to 4,096 positions; a sliding window limits sharing in any family."""
    if backbone == "llava":
        model, name = load_model(folders(backbone)), "native"  # 8 x 576 tokens
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


# 5) positions, DeepStack, timestamps


def test_tokens_of_qwen_are_placed_by_time_row_and_column(backbones, shared):
    model = backbones("qwen2_5_vl")
    video = sampled(shared, 0, 6)
    tokens = visual_part(model, video, "slowfast-slow_0frms_concat-fast_2x3")
    visual = tokens.positions[tokens.visual].reshape(6, 2, 3, 3)
    start = int(tokens.positions[0, 0]) + 1
    times = np.floor((video.pts_seconds - video.pts_seconds[0]) * 2 + 1e-6)
    assert (visual[:, 0, 0, 0] - start).tolist() == times.tolist()
    assert (visual[0, :, 0, 1] - start).tolist() == [2, 8]  # rows 0-5 and 6-11
    assert (visual[0, 0, :, 2] - start).tolist() == [1, 5, 9]  # columns 0-3, 4-7 and 8-11
    assert tokens.end == int(tokens.positions.max()) + 1


def test_consecutive_positions_are_those_of_text(folders, shared):
    model = load_model(folders("qwen2_5_vl"), positions="consecutive")
    tokens = visual_part(model, sampled(shared, 0, 6), SLOWFAST)
    assert tokens.positions.T.tolist() == [list(range(len(tokens)))] * 3 and tokens.end == len(tokens)
    assert model.info.options == {"positions": "consecutive"}


@pytest.mark.parametrize("backbone", ["qwen2_5_vl", "qwen3_vl"])
def test_timestamps_come_before_each_frame(folders, shared, backbone):
    model = load_model(folders(backbone), timestamps=True)
    video = sampled(shared, 0, 4)
    tokens = visual_part(model, video, "slowfast-slow_0frms_concat-fast_2x2")
    times = "".join(f"<{seconds:.1f} seconds>" for seconds in video.pts_seconds)
    embedded = model.language_model.embed_ids(torch.arange(model.info.tokenizer.vocabulary))
    text = tokens.embeddings[~tokens.visual]
    ids = [int((embedded - row).abs().sum(1).argmin()) for row in text]
    assert model.info.tokenizer.decode(ids).replace(" ", "") == times.replace(" ", "")
    assert tokens.count == 16
    answers = model.answer(tokens, QUESTIONS, max_new_tokens=8)
    alone = model.answer(tokens, QUESTIONS, max_new_tokens=8, share_prefix=False)
    assert [a.token_ids for a in answers] == [a.token_ids for a in alone]
    assert answers[0].visual_tokens == 16


def test_deepstack_sets_follow_the_choices_made_on_the_main_set():
    torch.manual_seed(0)
    grid = torch.randn(6, 4, 4, 3 * 5)
    first, *others = grid.split(5, -1)
    # averages: each set on its own
    pool = parse_aggregation("slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")
    embeddings, sets = aggregate(pool, grid, 5)
    assert torch.equal(embeddings, pool(first))
    for k, other in enumerate(others):
        torch.testing.assert_close(sets[:, k], pool(other))
    # a maximum: the values at the patch with the maximum in the main set
    embeddings, sets = aggregate(parse_aggregation("spatial_2d_max_pool"), grid, 5)
    _, index = torch.nn.functional.max_pool2d(first.permute(0, 3, 1, 2), 2, 2, return_indices=True)
    for k, other in enumerate(others):
        wanted = other.permute(0, 3, 1, 2).flatten(2).gather(2, index.flatten(2)).transpose(1, 2).flatten(0, 1)
        assert torch.equal(sets[:, k], wanted)
    # key frames and merging: the frames and patches chosen on the main set
    for name in ("keyframes-2frms_concat", "merged-20"):
        method = parse_aggregation(name)
        _, sets = aggregate(method, torch.cat([first, first], -1), 5)
        torch.testing.assert_close(sets[:, 0], method(first))
    assert aggregate(pool, first, 5)[1] is None


# 6) prompts


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_text_around_the_video_matches_the_chat_template(tmp_path, template):
    backbone = {"onevision": "llava_onevision", "qwen": "qwen2_5_vl", "qwen3": "qwen3_vl"}.get(template, "llava")
    text = {"model_type": "qwen2"} if template == "llava_qwen" else {}
    model = load_model(write_random_backbone(tmp_path, backbone, template=template, text=text))
    assert model.info.family == template
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tokenizer.chat_template = (tmp_path / "chat_template.jinja").read_text()

    def applied(*turns) -> str:
        return tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)

    user = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what?"}]}
    system = {"role": "system", "content": [{"type": "text", "text": "Be short."}]}
    before, after = chat_prompt(template, "Be short.").pieces(Question("what?"))
    place = "<|vision_start|><|video_pad|><|vision_end|>" if template in ("qwen", "qwen3") else "<video>"
    ours = before + place + after
    if template in ("vicuna", "llama3"):  # these templates write a line break after the video
        ours = ours.replace("<video>", "<video>\n")
    assert ours == applied(system, user)
    # each task's prompt has the same turns, and the system text that the checkpoint was trained with
    usual = {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}
    turns = (usual, user) if template == "llava_qwen" else (user,)
    for task in ("open", "choice", "describe"):
        text = pack_prompt(template, task).text
        start, end = applied(*turns).split("what?")
        end = end if template != "vicuna" else end.lstrip()
        assert end in text and (template in ("vicuna", "llama3") or text.startswith(start.replace(place, "<video>")))


def test_an_unknown_prompt_format_is_an_error(tmp_path):
    folder = write_random_backbone(tmp_path, "llava", template="llama3")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load_model(folder).info.family == "llama3"  # by its special tokens
    tokens = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokens.replace("start_header_id", "other"))
    with pytest.raises(Exception, match=r"the prompt format is unknown.*--family.*llama3.*vicuna"):
        load_model(folder)
    assert load_model(folder, family="llama3").info.family == "llama3"
    with pytest.raises(Exception, match="no prompt family is called 'lama'; choose from"):
        load_model(folder, family="lama")


# 7) layouts, and configs that cannot be used


@pytest.mark.parametrize("backbone", ["llava", "llava_onevision"])
def test_original_layouts(folders, shared, tmp_path, backbone):
    original = load_model(write_random_backbone(tmp_path, backbone, original=True))
    model = load_model(folders(backbone))
    assert (original.info.layout, original.info.model_type) == ("original", backbone)
    video = sampled(shared, 0, 4)
    one, two = (visual_part(m, video, SLOWFAST).embeddings for m in (model, original))
    torch.testing.assert_close(one, two)
    assert original.info.shape.vision.count == model.info.shape.vision.count
    # the original LLaVA-OneVision was trained with another chat format than that on the hub
    assert original.info.family == ("llava_qwen" if backbone == "llava_onevision" else "vicuna")


def edit(folder, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        part, _, key = name.rpartition("__")
        (config[part] if part else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("backbone", "fields", "message"),
    [
        ("qwen3_vl", {"model_type": "qwen3_vl_moe"}, r"model_type llava or .*qwen3_vl.*got model_type 'qwen3_vl_moe'"),
        ("llava", {"vision_feature_select_strategy": "full"}, "must be default, which drops CLS, got 'full'"),
        ("llava_onevision", {"vision_feature_select_strategy": "default"}, "must be full, since this tower has no CLS"),
        ("llava", {"vision_config__hidden_size": 128}, "do not fit the config: wrong shapes"),
        ("qwen2_5_vl", {"vision_config__out_hidden_size": 32}, "out_hidden_size 32 is not the language model's"),
        ("qwen2_5_vl", {"vision_config__spatial_merge_size": 5}, "spatial_merge_size must divide 24, got 5"),
        ("qwen3_vl", {"vision_config__spatial_merge_size": 0}, "spatial_merge_size|ZeroDivisionError"),
        ("qwen2_5_vl", {"vision_config__num_heads": 0}, "num_heads must be from 1"),
        ("qwen2_5_vl", {"vision_config__depth": 10**7}, "depth must be from 1 to 1,000, got 10,000,000"),
        ("qwen2_5_vl", {"num_hidden_layers": 200_000}, "num_hidden_layers must be from 1 to 1,000"),
        ("llava_next_video", {"spatial_pool_stride": 0}, "cannot be used: ZeroDivisionError"),
        ("llava", {"quantization_config": {"quant_method": "gptq"}}, r"quantised \(gptq\).*pip install gptqmodel"),
    ],
)
def test_configs_that_cannot_be_used(tmp_path, backbone, fields, message):
    folder = write_random_backbone(tmp_path, backbone)
    edit(folder, **fields)
    with pytest.raises(Exception, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_preprocessor_that_does_not_match_the_tower(tmp_path):
    folder = write_random_backbone(tmp_path / "a", "llava")
    (folder / "preprocessor_config.json").write_text(json.dumps({"crop_size": {"height": 224, "width": 224}}))
    with pytest.raises(Exception, match="makes images of 224 pixels, but the vision tower takes 336"):
        load_model(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2], "image_std": [1, 1, 1]}))
    with pytest.raises(Exception, match="image_mean must be three numbers"):
        load_model(folder)
    folder = write_random_backbone(tmp_path / "b", "qwen2_5_vl")
    (folder / "preprocessor_config.json").write_text(json.dumps({"patch_size": 16}))
    with pytest.raises(Exception, match="preprocessor has patch_size 16, but the vision tower has 14"):
        load_model(folder)


def test_pixel_statistics_come_from_the_preprocessor(tmp_path, shared):
    folder = write_random_backbone(tmp_path, "llava")
    before = load_model(folder).encode(sampled(shared, 0, 1).frames)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    assert not torch.allclose(load_model(folder).encode(sampled(shared, 0, 1).frames), before, atol=1e-3)


def test_frames_without_times_are_one_second_apart(backbones, shared):
    model, video = backbones("qwen2_5_vl"), sampled(shared, 0, 7)
    for name in (SLOWFAST, "native", "thumbnail-2x3-sampled_200", "image_grid-2x3"):
        setting = Setting(7, name).for_model(model.info)
        grid = model.encode(setting.images(video.frames))
        unknown, counted = (model.tokens(setting, grid, seconds) for seconds in (np.full(7, np.nan), np.arange(7.0)))
        assert torch.equal(unknown.positions, counted.positions)
    # a single unknown time lies between its neighbours
    some = np.array([0, 2, np.nan, 6, 8, 10, 12.0])
    assert frame_times(some, 7).tolist() == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(Exception, match="needed the times of 7 frames, got 3"):
        model.tokens(Setting(7, SLOWFAST), model.encode(video.frames), np.arange(3.0))


@pytest.mark.parametrize("backbone", ["qwen2_5_vl", "qwen3_vl"])
def test_key_frames_have_their_own_times_in_half_precision(folders, shared, backbone):
    model, video = load_model(folders(backbone), dtype="bfloat16"), sampled(shared, 0, 24)
    setting = Setting(24, "keyframes-5frms_concat")
    grid = model.encode(video.frames)
    tokens = model.tokens(setting, grid, video.pts_seconds)
    patches = grid[..., : model.language_model.width].flatten(1, 2)
    first = tokens.embeddings[tokens.visual][::144]  # the first patch of each key frame
    frames = [int((patches[:, 0] == row).all(1).nonzero()[0]) for row in first]
    times = np.floor((video.pts_seconds[frames] - video.pts_seconds[0]) * 2 + 1e-6)
    assert (tokens.positions[tokens.visual][::144, 0] - tokens.positions[0, 0] - 1).tolist() == times.tolist()


@pytest.mark.parametrize("backbone", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("timestamps", [False, True])
def test_the_rows_of_a_prompt_are_counted_before_anything_is_encoded(folders, shared, backbone, timestamps):
    model, video = load_model(folders(backbone), timestamps=timestamps), sampled(shared, 0, 7)
    for name in (SLOWFAST, "native", "merged-800"):
        if timestamps and name == "merged-800":
            continue
        tokens, setting = visual_part(model, video, name), Setting(7, name)
        text = len(tokens) - tokens.count
        bound = model.info.prompt_rows(setting) - tokens.count
        assert text <= bound <= 2 * text + 40
        assert bound == 0 or backbone != "llava_onevision"


def test_a_flat_config_as_on_the_hub(folders, tmp_path):
    """Qwen2.5-VL's has the fields of the language model at the top, and M-RoPE as rope_scaling."""
    shutil.copytree(folders("qwen2_5_vl"), tmp_path / "flat")
    config = json.loads((tmp_path / "flat" / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"]}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    flat = {**{k: v for k, v in text.items() if k not in ("model_type", "layer_types")}, **config}
    (tmp_path / "flat" / "config.json").write_text(json.dumps(flat))
    one, two = load_model(folders("qwen2_5_vl")), load_model(tmp_path / "flat")
    assert one.info.shape == two.info.shape
    tokens = torch.randn(20, one.language_model.width)
    said = [model.answer(tokens, QUESTIONS, max_new_tokens=6) for model in (one, two)]
    assert [a.token_ids for a in said[0]] == [a.token_ids for a in said[1]]


def test_a_grid_is_not_taken_for_tokens(backbones, shared):
    model = backbones("qwen3_vl")
    grid = model.encode(sampled(shared, 0, 2).frames)
    for ask in (model.answer, lambda *a: list(model.stream(a[0], a[1][0]))):
        with pytest.raises(Exception, match=r"make them of a grid with model.tokens"):
            ask(grid.flatten(0, 2), QUESTIONS)


def test_native_needs_a_model():
    with pytest.raises(Exception, match=r"needed setting.for_model\(model.info\)"):
        Setting(4, "native").tokens(torch.zeros(4, 2, 2, 8))
    with pytest.raises(Exception, match=r"needed setting.for_model\(model.info\)"):
        Setting(4, "native").images(np.zeros((4, 8, 8, 3), np.uint8))
    assert Setting(4, "native") == Setting(4, "native") and Setting(4, "native").name == "4frms-native"
