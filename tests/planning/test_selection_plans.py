"""Plans of settings that choose frames for each question, against numbers by hand and what a run does."""

from __future__ import annotations

import pytest
from devices import CPU, GPU
from scorers import write_colours, write_scorer
from shell import sfllava
from small_runs import questions_csv, run

from sfllava.benchmarks import load_benchmark
from sfllava.models.sizes import sizes_of
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.planning import plan
from sfllava.planning.budget import context_budget
from sfllava.planning.stages import encode_cost, prefill_cost
from sfllava.planning.workload import planned_questions, workload_of
from sfllava.runs.run_folder import read_rows
from sfllava.runs.selection_source import SelectionSource
from sfllava.settings import Setting

SIXTEEN = "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4"


def test_one_prefix_per_question_by_hand():
    uniform, chosen = Setting(16, SIXTEEN), Setting(16, SIXTEEN, selection="topk")
    one, other = plan("7b", [uniform, chosen], "nextqa", GPU).settings
    assert one.visual_tokens == other.visual_tokens == 4 * 24 * 12 + 16 * 16
    assert other.prefill_flops * 570 == pytest.approx(4996 * one.prefill_flops)
    sizes = sizes_of("7b")
    prefix = planned_questions(chosen, sizes, workload_of("nextqa")).prefix_tokens
    assert other.prefill_seconds * 570 == pytest.approx(4996 * prefill_cost(sizes.shape, GPU, prefix).seconds)
    # 8.8 questions a video, each with 16 frames of its own at most
    assert other.encode_flops == encode_cost(sizes.shape, GPU, 9 * 16, 64).flops == 9 * one.encode_flops
    assert "at most 4,996 prefixes in all, and 144 images a video" in other.note and not one.note
    text = str(plan("7b", chosen, "nextqa", GPU))
    assert "decoding the video files is not in it, nor is the scorer's work on one frame per second" in text
    assert "scorer" not in str(plan("7b", uniform, "nextqa", GPU))
    assert other.one_by_one_seconds == pytest.approx(one.one_by_one_seconds)


@pytest.mark.parametrize(("pathway", "images"), [("all", 9 * 16), ("slow", 16 + 9 * 4), ("both", 9 * 20)])
def test_images_by_pathway(pathway, images):
    chosen = Setting(16, SIXTEEN, selection="bolt", selection_for=pathway)
    (one,) = plan("7b", chosen, "nextqa", GPU).settings
    assert f"and {images} images a video" in one.note
    # a video has no more frames than it has
    (short,) = plan("7b", chosen, "nextqa", GPU, video_frames=40).settings
    assert f"and {min(images, 40)} images a video" in short.note
    # uniform frames that another setting has too are encoded once
    both = plan("7b", [Setting(16, SIXTEEN), chosen], "nextqa", GPU)
    shared = 0 if pathway == "slow" else 16
    expected = encode_cost(sizes_of("7b").shape, GPU, images + shared, 64).seconds * 570
    assert both.encode_seconds == pytest.approx(expected)


def test_a_front_of_uniform_frames_is_prefilled_once():
    chosen = {
        order: Setting(16, f"{SIXTEEN}{order}", selection="topk", selection_for="slow") for order in ("", "-fast_first")
    }
    front = {
        order: planned_questions(setting, sizes_of("7b"), workload_of("nextqa")).front
        for order, setting in chosen.items()
    }
    assert front == {"": 0, "-fast_first": 16 * 16}
    whole, shared = (plan("7b", setting, "nextqa", GPU).settings[0] for setting in chosen.values())
    saved = (whole.prefill_flops - shared.prefill_flops) * 570
    sizes = sizes_of("7b")
    asked = planned_questions(chosen["-fast_first"], sizes, workload_of("nextqa"))
    each = prefill_cost(sizes.shape, GPU, asked.prefix_tokens).flops
    behind = prefill_cost(sizes.shape, GPU, asked.prefix_tokens, asked.before + 256).flops
    assert saved == pytest.approx((4996 - 570) * (each - behind)) and saved > 0


def test_memory_is_that_of_prefixes_that_are_answered_together():
    chosen = Setting(16, SIXTEEN, selection="topk")
    alone, together = (plan("7b", chosen, "nextqa", GPU, workers=n).settings[0] for n in (4, 1))
    position = 32 * 2 * 4096 * 2
    assert together.kv_bytes == pytest.approx(12 * (together.prompt_tokens + 128) * position, rel=0.01)
    assert alone.kv_bytes == pytest.approx(9 * (alone.prompt_tokens + 128) * position, rel=0.01)
    # twelve questions in a row are about two videos, and one more while batches are joined
    assert together.patch_bytes == 3 * 9 * 16 * 576 * 4096 * 2
    small = plan("7b", chosen, "egoschema", CPU)
    assert small.settings[0].patch_bytes == 13 * 16 * 576 * 4096 * CPU.itemsize


def test_a_run_takes_no_more_than_its_plan(models, checkpoints, tmp_path, monkeypatch):
    videos, scorer = write_colours(tmp_path / "videos"), write_scorer(tmp_path / "clip")
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", "ab"), videos)
    encoded, prefixes = [], []
    encode, answer = TransformersVideoLM.encode, TransformersVideoLM.answer_batch
    monkeypatch.setattr(
        TransformersVideoLM, "encode", lambda self, frames: encoded.append(len(frames)) or encode(self, frames)
    )
    monkeypatch.setattr(
        TransformersVideoLM, "answer_batch",
        lambda self, asked, **more: prefixes.append(len(asked)) or answer(self, asked, **more),
    )  # fmt: skip
    setting = Setting(6, "slowfast-slow_2frms_concat-fast_2x2", selection="topk", selection_for="slow")
    source = SelectionSource(str(scorer), cache=tmp_path / "scores")
    made = plan(checkpoints(), setting, benchmark, CPU, max_new_tokens=6, video_frames=96)
    done = run(models(), benchmark, tmp_path / "run", setting, selection=source)
    rows = list(read_rows(done.path))
    assert {row["visual_tokens"] for row in rows} == {made.settings[0].visual_tokens}
    note = made.settings[0].note
    most = int(note.split("at most ")[1].split(" prefixes")[0]), int(note.split("and ")[1].split(" images")[0])
    assert most == (8, 6 + 4 * 2) and 2 < sum(prefixes) <= 8 and 6 < max(encoded) <= 14


def test_the_budget_of_a_question_counts_both_pathways_frames(models):
    model = models()
    counts = {
        pathway: context_budget(Setting(16, SIXTEEN, selection="topk", selection_for=pathway), model)
        for pathway in ("all", "slow", "both")
    }
    assert counts["slow"].encode_flops == counts["both"].encode_flops == model.info.shape.encode_flops(20)
    assert counts["all"].encode_flops == model.info.shape.encode_flops(16)
    assert len({budget.visual for budget in counts.values()}) == 1


def test_from_the_command_line(tmp_path):
    GPU.save(tmp_path / "gpu.json")
    words = ("plan", "egoschema", "--model", "7b", "--roofline", tmp_path / "gpu.json", "--frames", 8)
    told = sfllava(*words, "--selection", "uniform", "bolt:power=2.5")
    assert told.returncode == 0, told.stderr
    assert "8frms-bolt:power=2.5-slowfast" in told.stdout and "nor is the scorer's work" in told.stdout
    swept = sfllava("plan", "--ablation", "slowfast_selection", *words[2:-2])
    assert swept.returncode == 0 and "frames are chosen for each question: at most" in swept.stdout, swept.stderr
