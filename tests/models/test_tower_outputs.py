"""Attention and keys of the vision tower: those of its own eager attention, only when asked for, encoded once."""

from __future__ import annotations

import pytest
import torch
from conftest import moving_square
from small_runs import questions_csv

from sfllava.ablation import load_ablation, measure_costs
from sfllava.aggregators.tower import PatchGrid, TowerFrames, tower_needs
from sfllava.attribution.attribution import attribute
from sfllava.benchmarks import load_benchmark
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.evaluate import evaluate
from sfllava.runs.run_folder import read_rows
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import SfllavaError

BOTH = ("attention", "keys")
NAMES = ("visionzip-40", "fastvid-40", "holitom-40", "vidcom2-40", "dyto-40", "prunevid-40", "merged-600", "concat")


@pytest.mark.parametrize("backbone", ["llava", "llava_next_video", "llava_onevision"])
def test_outputs_are_those_of_the_towers_own_attention(backbones, backbone):
    """CLIP: CLS is the query. SigLIP: the mean over all patches as queries. The features do not change."""
    model, frames = backbones(backbone), moving_square(3)
    plain, grid = model.encode(frames), model.encode(TowerFrames(frames, BOTH))
    assert isinstance(plain, torch.Tensor) and isinstance(grid, PatchGrid) and torch.equal(grid.features, plain)
    tower = model.encoder._tower
    layer, first = tower.encoder.layers[-1].self_attn, model.info.shape.cls_tokens
    keys, before = [], tower.config._attn_implementation
    handle = layer.k_proj.register_forward_hook(lambda module, inputs, out: keys.append(out))
    weights = []
    seen = layer.register_forward_hook(lambda module, inputs, out: weights.append(out[1]))
    try:
        tower.config._attn_implementation = "eager"
        model.encode(frames)
    finally:
        tower.config._attn_implementation = before
        handle.remove()
        seen.remove()
    rows = torch.cat(weights).mean(1)  # (T queries keys)
    wanted = (rows[:, 0] if first else rows.mean(1))[:, first:].reshape(grid.attention.shape)
    torch.testing.assert_close(grid.attention, wanted, atol=1e-6, rtol=1e-4)
    heads = torch.cat(keys).unflatten(-1, (layer.num_heads, -1)).mean(2)[:, first:]
    torch.testing.assert_close(grid.keys.flatten(1, 2), heads, atol=2e-5, rtol=1e-4)
    assert first == (0 if backbone == "llava_onevision" else 1)
    one = model.encode(TowerFrames(frames, BOTH), batch=1)
    torch.testing.assert_close(one.attention, grid.attention, atol=1e-6, rtol=1e-4)
    only = model.encode(TowerFrames(frames, ("attention",)))
    assert only.keys is None and torch.equal(only.attention, grid.attention)
    assert not layer._forward_pre_hooks


def test_qwen_refuses_in_one_line(backbones):
    for backbone in ("qwen2_5_vl", "qwen3_vl"):
        model = backbones(backbone)
        with pytest.raises(
            SfllavaError, match=rf"^visionzip-64 needs the attention and keys of a CLIP .* {backbone} models"
        ):
            Setting(4, "visionzip-64").for_model(model.info)
        with pytest.raises(SfllavaError, match=rf"^the vision tower of {backbone} models gives no attention$"):
            model.encode(TowerFrames(moving_square(2), ("attention",)))
        for name in ("vidcom2-40", "dyto-40", "prunevid-40"):
            video = moving_square(5)
            tokens = model.tokens(Setting(5, name), model.encode(video))
            assert tokens.count == 40, name
        names = [s.name for s in load_ablation("methods").settings(model.info, "choice", 1200)]
        assert "vidcom2" in names and "visionzip" not in names and "fastvid, 25 %" not in names


@pytest.mark.parametrize("backbone", ["llava", "llava_onevision"])
def test_odd_and_even_grids_of_real_towers(backbones, backbone):
    model = backbones(backbone)
    side = 27 if backbone == "llava_onevision" else 24
    for name in NAMES[:6]:
        setting = Setting(3, name).for_model(model.info)
        grid = model.encode(setting.images(moving_square(3)))
        tokens = model.tokens(setting, grid)
        assert len(tokens) == 40 == model.info.prompt_rows(setting) and model.info.grid == (side, side)
        assert isinstance(grid, PatchGrid) == bool(tower_needs(setting.aggregation))


@pytest.fixture
def benchmark(videos, tmp_path):
    return load_benchmark("open", questions_csv(tmp_path / "q.csv", each=1), videos)


def test_a_run_encodes_each_frame_once_and_equals_separate_runs(models, benchmark, tmp_path, monkeypatch):
    model, encoded, encode = models(), [], TransformersVideoLM.encode

    def counted(self, frames, batch=None):
        encoded.append((len(frames), getattr(frames, "needs", ())))
        return encode(self, frames, batch)

    monkeypatch.setattr(TransformersVideoLM, "encode", counted)
    settings = [Setting(4, name) for name in NAMES]
    options = {"max_new_tokens": 4, "progress": False}
    run = evaluate(model, benchmark, settings, tmp_path / "all", **options)
    assert sorted(encoded) == [(4, BOTH)] * 3
    rows = {(r["key"], r["setting"]): r for r in read_rows(run.path)}
    assert len(rows) == 3 * len(NAMES) and not any(r["error"] for r in rows.values())
    for i, setting in enumerate(settings):
        encoded.clear()
        alone = evaluate(model, benchmark, setting, tmp_path / str(i), **options)
        assert encoded == [(4, tower_needs(setting.aggregation))] * 3, "only what this setting needs"
        for row in read_rows(alone.path):
            other = rows[row["key"], row["setting"]]
            assert (row["token_ids"], row["visual_tokens"]) == (other["token_ids"], other["visual_tokens"])


def test_tokens_of_a_run_are_those_of_the_plain_way(models, videos):
    model = models()
    frames = read_video(videos / "a.mp4", 4).frames
    shared = model.encode(TowerFrames(frames, BOTH))
    for name in NAMES:
        setting = Setting(4, name)
        plain = model.tokens(setting, model.encode(setting.images(frames)))
        assert torch.equal(model.tokens(setting, shared).embeddings, plain.embeddings), name


def test_the_explorer_keeps_outputs_by_frame(models, videos):
    known = FeatureCache(models())
    path = videos / "a.mp4"
    first = known.sample(path, Setting(4, "concat"))
    assert isinstance(first.grid, torch.Tensor) and first.encoded == 4
    second = known.sample(path, Setting(4, "holitom-40"))
    assert second.encoded == 4 and torch.equal(second.grid.features, first.grid) and second.grid.keys is None
    third = known.sample(path, Setting(4, "fastvid-40"))
    assert third.encoded == 0 and torch.equal(third.grid.attention, second.grid.attention)
    fourth = known.sample(path, Setting(4, "visionzip-40"))
    assert fourth.encoded == 4 and fourth.grid.keys is not None
    again = known.sample(path, Setting(4, "concat"))
    assert again.encoded == 0 and torch.equal(again.grid, first.grid)
    sizes = [t.nbytes for t in (fourth.grid.features, fourth.grid.attention, fourth.grid.keys)]
    assert known.size == again.video.frames.nbytes + sum(sizes)


def test_attention_of_answers_and_costs(models, benchmark, videos):
    model, video = models(), read_video(videos / "a.mp4", 4)
    for name in ("visionzip-40", "prunevid-40"):
        found = attribute(model, video, Setting(4, name), "what is it?", max_new_tokens=2)
        assert found.attention.isfinite().all() and sum(len(s.frames) for s in found.sources) == 40
    costs = measure_costs(model, benchmark, [Setting(4, name, name) for name in NAMES[:2]])
    assert costs.keys() == set(NAMES[:2])
