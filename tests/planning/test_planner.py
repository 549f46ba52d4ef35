"""Plans of runs, against numbers by hand and what a run does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devices import CPU, FLAT, GPU

from sfllava.benchmarks import load_benchmark
from sfllava.models.packed_decoding import PACKED_POSITIONS, split_to_fit
from sfllava.models.sizes import sizes_of
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.planning import plan
from sfllava.planning.fitting import batch_sizes, estimate_memory
from sfllava.planning.workload import planned_questions, workload_of
from sfllava.runs.evaluate import evaluate
from sfllava.runs.jobs import MAX_BATCH_QUESTIONS
from sfllava.settings import Setting
from sfllava.types import SfllavaError

from conftest import FirstFrames  # isort: skip

DEFAULT = Setting()


def test_the_default_setting_of_7b_by_hand():
    made = plan("7b", DEFAULT, "nextqa", GPU)
    (one,) = made.settings
    assert one.visual_tokens == 10 * 24 * 12 + 50 * 16 == 3680
    weights = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    before = round(one.prefill_flops / (2 * weights)) - 3680  # attention is some 3 % more
    start = planned_questions(DEFAULT, sizes_of("7b"), workload_of("nextqa")).prefix_tokens
    assert 0 < start - 3680 <= before
    assert one.prefill_flops == 2 * start * weights + 4 * 32 * 4096 * start * (start + 1) / 2
    patches, tower = 576, 23 * (4 * 1024 * 1024 + 2 * 1024 * 4096)
    vision = 2 * 577 * tower + 4 * 23 * 1024 * 577**2 + 2 * patches * (3 * 14 * 14 * 1024 + 1024 * 4096 + 4096 * 4096)
    assert one.encode_flops == 50 * vision
    assert made.weight_bytes == 2 * 7_050_310_656 and (made.videos, made.questions) == (570, 4996)
    # at least the prefix and one question's room, of half a MiB a position
    assert 2 * 32 * 4096 * 2 == 2**19 and one.kv_bytes > (start + 128) * 2**19
    assert one.peak_bytes == made.weight_bytes + one.kv_bytes + one.patch_bytes + one.work_bytes
    assert one.fits and made.fits and one.alone == 0
    # a product at 100 TFLOP/s bounds the time from below, and nothing here is memory-bound by more than half
    assert one.prefill_flops / 1e14 < one.prefill_seconds < 1.5 * one.prefill_flops / 1e14
    # a step reads all weights of the language model
    assert one.decode_seconds > 127 * 2 * weights / 2e12
    assert "3,680" in str(made) and "GPU-hours" in str(made)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"settings": Setting(20)}, {"settings": Setting(50)}),
        ({"model": "7b"}, {"model": "13b"}),
        ({"model": "13b"}, {"model": "34b"}),
        ({"questions": 4996}, {"questions": 9000}),
        ({"new_tokens": 5}, {"new_tokens": 50}),
        ({"answer_mode": "logits"}, {"answer_mode": "generate"}),
        ({"settings": Setting(50, "slowfast-slow_10frms_spatial_2d_avg_pool-fast_4x4")}, {}),
        ({"settings": DEFAULT}, {"settings": [DEFAULT, Setting(40)]}),
    ],
)
def test_more_costs_more(less, more):
    base = {"model": "7b", "settings": DEFAULT, "benchmark": "nextqa", "roofline": replace(GPU, free_bytes=2**40)}
    base |= {"videos": 570, "questions": 4996}
    one, other = plan(**base | less), plan(**base | more)
    assert one.seconds < other.seconds and one.one_by_one_seconds < other.one_by_one_seconds
    assert one.seconds < one.one_by_one_seconds
    if len(other.settings) == 1:
        assert one.settings[0].peak_bytes <= other.settings[0].peak_bytes


def test_a_faster_device_takes_less():
    twice = replace(GPU, linear=tuple((a, b, 2 * c) for a, b, c in FLAT), read=4e12, layer_seconds=1e-4)
    assert plan("7b", DEFAULT, "msvd", twice).seconds < plan("7b", DEFAULT, "msvd", GPU).seconds
    four = plan("7b", DEFAULT, "msvd", GPU, workers=4)
    assert four.hours == four.device_hours / 4 and "with 4 workers" in str(four)


def test_a_sweep_shares_frames_and_fronts():
    made = plan("7b", "slow_by_fast", "nextqa", GPU)
    single = sum(s.encode_seconds for s in made.settings) * made.videos
    assert made.encode_seconds == pytest.approx(single / 12), "all sample the same 50 frames"
    prefills = sum(s.prefill_seconds for s in made.settings) * made.videos
    assert made.prefill_seconds < 0.6 * prefills, "three Slow pathways, each computed once"
    assert made.decode_seconds == pytest.approx(sum(s.decode_seconds for s in made.settings) * made.videos)
    methods = plan("7b", "methods", "nextqa", GPU)
    tiled = [s for s in methods.settings if s.name.startswith(("image grid", "thumbnail"))]
    plain = next(s for s in methods.settings if s.name == "slowfast")
    once = plain.encode_seconds + sum(s.encode_seconds for s in tiled)
    assert methods.encode_seconds == pytest.approx(once * methods.videos)


@pytest.mark.parametrize(
    ("counts", "together"),
    [
        ([1] * 26, [12, 12, 2]),
        ([3] * 9, [4, 4, 1]),
        ([5] * 5, [2, 2, 1]),
        ([1, 1, 5, 6, 13, 2, 2, 9, 12, 1, 1], [3, 1, 1, 2, 1, 1, 2]),
    ],
)
def test_videos_are_grouped_as_a_run_groups_them(models, videos, tmp_path, monkeypatch, counts, together):
    for i in range(len(counts)):
        (tmp_path / f"v{i:02}.mp4").hardlink_to(videos / "a.mp4")
    asked = [f"v{i:02},what {n}?,x" for i, count in enumerate(counts) for n in range(count)]
    (tmp_path / "q.csv").write_text("\n".join(["video_name,question,answer", *asked]) + "\n")
    benchmark = load_benchmark("open", tmp_path / "q.csv", tmp_path)
    answer, groups = TransformersVideoLM.answer_batch, []

    def watched(self, films, **options):
        groups.append([len(questions) for _, questions in films])
        return answer(self, films, **options)

    monkeypatch.setattr(TransformersVideoLM, "answer_batch", watched)
    evaluate(models(), benchmark, Setting(1, "temporal_global_pool"), tmp_path / "run", max_new_tokens=1)
    assert [[counts[i] for i in group] for group in workload_of(benchmark).groups(MAX_BATCH_QUESTIONS)] == groups
    assert list(map(len, groups)) == together


def test_egoschema_is_planned_twelve_videos_together():
    position, grid, (one,) = 32 * 2 * 4096 * 2, 50 * 576 * 4096 * 2, plan("7b", DEFAULT, "egoschema", GPU).settings
    assert one.kv_bytes == pytest.approx(12 * (one.prompt_tokens + 128) * position, rel=0.01)
    assert one.patch_bytes == 13 * grid, "the patches of twelve videos, and once more while batches are joined"
    assert 40 * 2**30 < one.peak_bytes < 42 * 2**30 and one.fits and not one.note
    less = plan("7b", DEFAULT, "egoschema", replace(GPU, free_bytes=one.peak_bytes - 1)).settings[0]
    assert less.fits and "falls back to 6 videos, 1 question of each and 64 images at a time" in less.note
    assert less.kv_bytes == one.kv_bytes / 2 and less.decode_seconds > one.decode_seconds
    # each of several workers is handed one video after another
    assert plan("7b", DEFAULT, "egoschema", GPU, workers=4).settings[0].kv_bytes == one.kv_bytes / 12


def test_methods_of_one_name_are_planned_apart():
    settings = [Setting(8, FirstFrames([n]), f"{n} images") for n in (2, 6)]
    together = plan("7b", settings, "egoschema", roofline=GPU)
    alone = [plan("7b", setting, "egoschema", roofline=GPU) for setting in settings]
    assert together.encode_seconds == pytest.approx(sum(one.encode_seconds for one in alone))


def test_questions_are_cut_as_decoding_cuts_them():
    found = planned_questions(DEFAULT, sizes_of("7b"), workload_of("nextqa"))
    suffixes = [[0] * found.suffix] * 40
    for videos in (1, 2, 4, 12):
        cut = split_to_fit(suffixes, 128, PACKED_POSITIONS // videos, 40)
        assert found.questions_at_a_time((40,) * videos, 40) == len(cut[0])


def test_past_the_shared_positions_each_question_is_alone():
    short, long = (Setting(50, f"slowfast-slow_10frms_spatial_1d_max_pool-fast_{n}x{n}") for n in (4, 6))
    made = plan("7b", [short, long], "nextqa", GPU)
    one, other = made.settings
    assert (one.alone, other.alone) == (0, 4996) and other.fits
    assert other.prefill_seconds > 8 * one.prefill_seconds, "8.8 questions a video"
    assert "4,996 questions pass 4,096 positions" in other.note
    frames = int(other.note.split("at ")[-1].split()[0])
    assert plan("7b", replace(long, frames=frames), "nextqa", GPU).settings[0].alone == 0
    assert plan("7b", replace(long, frames=frames + 1), "nextqa", GPU).settings[0].alone == 4996
    # the same tokens where RoPE's limit is farther
    assert plan("mistral-7b", long, "nextqa", GPU).settings[0].alone == 0


def test_what_does_not_fit_the_context_says_what_does():
    made = plan("7b", [DEFAULT, Setting(600)], "nextqa", GPU)
    one, other = made.settings
    assert one.fits and not other.fits and not made.fits and "do not fit the context of 8,192" in other.note
    frames = int(other.note.split("at most ")[1].split()[0])
    assert plan("7b", Setting(frames), "nextqa", GPU).settings[0].fits
    assert not plan("7b", Setting(frames + 1), "nextqa", GPU).settings[0].fits
    assert made.seconds == plan("7b", DEFAULT, "nextqa", GPU).seconds, "the sums are of what fits"
    assert "does not fit" in str(made) and "the 1 that fit" in str(made)


def test_what_does_not_fit_the_memory_says_what_does():
    whole = plan("34b", DEFAULT, "nextqa", GPU).settings[0]
    assert whole.fits and not whole.note
    small = plan("34b", DEFAULT, "nextqa", replace(GPU, free_bytes=whole.peak_bytes - 1)).settings[0]
    assert small.fits and small.peak_bytes < whole.peak_bytes and "a run falls back to" in small.note
    sizes, asked = sizes_of("34b"), planned_questions(DEFAULT, sizes_of("34b"), workload_of("nextqa"))
    least = estimate_memory(asked, sizes, GPU, 50, batch_sizes(asked, GPU, MAX_BATCH_QUESTIONS)[-1]).peak
    assert plan("34b", DEFAULT, "nextqa", replace(GPU, free_bytes=least)).fits
    none = plan("34b", DEFAULT, "nextqa", replace(GPU, free_bytes=least - 1)).settings[0]
    assert not none.fits and "2 such GPUs (--device-map auto)" in none.note
    frames = int(none.note.split("at most ")[1].split()[0])
    assert plan("34b", Setting(frames), "nextqa", replace(GPU, free_bytes=least - 1)).fits
    tiny = plan("34b", DEFAULT, "nextqa", replace(GPU, free_bytes=24 * 2**30)).settings[0]
    assert "at most" not in tiny.note and "3 such GPUs" in tiny.note
    laptop = plan("7b", DEFAULT, "nextqa", replace(CPU, free_bytes=24 * 2**30))
    assert not laptop.fits and "float16" in laptop.settings[0].note and "nothing fits" in str(laptop)


def test_unknown_names_list_what_there_is(tmp_path):
    with pytest.raises(
        SfllavaError, match=r"no model is called '8b'; choose from 7b, 13b, mistral-7b, 34b, .*, tiny, or"
    ):
        plan("8b", DEFAULT, "nextqa", GPU)
    with pytest.raises(
        SfllavaError, match=r"no benchmark is called 'next' \(did you mean 'nextqa'\?\); choose from activitynet"
    ):
        plan("7b", DEFAULT, "next", GPU)
    with pytest.raises(SfllavaError, match="no ablation is called 'none'; choose from fast_grid"):
        plan("7b", "none", "nextqa", GPU)
    with pytest.raises(SfllavaError, match="workers and video_frames must be at least 1, got 0"):
        plan("7b", DEFAULT, "nextqa", GPU, workers=0)
    with pytest.raises(SfllavaError, match=r"config\.json: no such file"):
        plan(str(tmp_path), DEFAULT, "nextqa", GPU)


def test_a_plan_is_a_frame():
    frame = plan("7b", "fast_grid", "nextqa", GPU).to_frame()
    assert list(frame["visual_tokens"][:2]) == [2930, 3280] and frame["fits"].all() and len(frame) == 7


def test_answering_together_that_seems_to_lose_is_told():
    assert not plan("7b", DEFAULT, "egoschema", GPU).warnings
    # something else ran while the products of a few rows were measured
    speeds = {1: 1e14, 4: 1e10, 64: 1e10, 512: 1e14}
    busy = tuple((rows, width, speed) for rows, speed in speeds.items() for width in (64, 4096))
    made = plan("7b", [DEFAULT, Setting(20)], "egoschema", replace(GPU, linear=busy), new_tokens=5)
    (warning,) = made.warnings
    assert all(s.name in warning for s in made.settings) and "predicted slower than one question at a time" in warning
    assert f"warning: {warning}" in str(made) and made.to_dict()["warnings"] == [warning]
