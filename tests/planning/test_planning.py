"""Plans against numbers by hand, torch's own counters, and what the real code does."""

from __future__ import annotations

import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaNextForConditionalGeneration

from sfllava.benchmarks import load_benchmark
from sfllava.cli import main
from sfllava.models.checkpoint import CLIP_L_336
from sfllava.models.llava_next import LlavaNext
from sfllava.models.packed_decoding import PACKED_POSITIONS, PackedBatch, PrefixGroup, split_to_fit
from sfllava.models.sizes import KNOWN, configure, sizes_of
from sfllava.planning import plan, probes, stages
from sfllava.planning.fitting import batch_sizes, estimate_memory
from sfllava.planning.roofline import Roofline, load_roofline, measure, rate
from sfllava.planning.workload import planned_questions, workload_of
from sfllava.runs.evaluate import evaluate
from sfllava.runs.jobs import MAX_BATCH_QUESTIONS
from sfllava.settings import Setting
from sfllava.types import SfllavaError

from conftest import FirstFrames  # isort: skip

DEFAULT = Setting()
FLAT = tuple((rows, width, 1e14) for rows in (1, 512) for width in (64, 4096))
GPU = Roofline(
    "a GPU", "cuda", "float16", 80 * 2**30, 78 * 2**30, 2e12, ((1, 2**20, 1.5e12),), FLAT, FLAT, FLAT, 1e14, 3e-4, 1e-4
)
CPU = replace(GPU, kind="cpu", dtype="float32")


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


@pytest.mark.parametrize("name", KNOWN)
def test_known_shapes_have_the_parameters_of_the_real_ones(name):
    config, _, keep = configure(
        {"model_type": "llava_next", "text_config": KNOWN[name], "vision_config": CLIP_L_336}, Path(name), 2.0
    )
    with torch.device("meta"):
        network = LlavaNextForConditionalGeneration(config)
    del network.model.vision_tower.encoder.layers[keep:]
    assert keep == 23 and sizes_of(name).shape.parameters == sum(p.numel() for p in network.parameters())


def test_known_shapes_are_the_published_ones():
    found = {
        name: (
            s.language.count,
            s.language.width,
            s.language.inner,
            s.language.heads,
            s.language.kv_heads,
            s.vocabulary,
        )
        for name, s in ((name, sizes_of(name).shape) for name in KNOWN)
    }
    assert found == {
        "7b": (32, 4096, 11008, 32, 32, 32000),
        "13b": (40, 5120, 13824, 40, 40, 32000),
        "mistral-7b": (32, 4096, 14336, 32, 8, 32000),
        "34b": (60, 7168, 20480, 56, 8, 64000),
    }
    assert all(sizes_of(name).shape.language.head_width == 128 for name in KNOWN)
    limits = {name: (sizes_of(name).context, sizes_of(name).shared_positions, sizes_of(name).family) for name in KNOWN}
    assert limits["7b"] == limits["13b"] == (8192, 4096, "vicuna")
    assert limits["34b"] == (8192, 4096, "chatml") and limits["mistral-7b"] == (8192, 32768, "mistral")
    assert sizes_of("llava-hf/llava-v1.6-vicuna-7b-hf") == sizes_of("7b")
    assert sizes_of("liuhaotian/llava-v1.6-mistral-7b") == sizes_of("mistral-7b")


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_operations_against_the_real_code(models, family):
    model = models(family)
    shape, frames = model.info.shape, np.zeros((3, 336, 336, 3), np.uint8)

    def counted(run) -> int:
        # of attention the counter knows the products alone, not the CPU's kernel
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    assert counted(lambda: model.encode(frames)) == stages.encode_cost(shape, CPU, 3, 2).flops

    tokens, before = torch.randn(70, shape.language.width), [1, 2, 3]
    inside = shape.language.count * shape.language.heads * shape.language.head_width
    # the counter takes causal attention for whole, where the kernels leave out what is not seen
    unseen = 4 * inside * (73 * 73 - 73 * 74 // 2)
    assert counted(lambda: model.prefill(before, tokens)) == stages.prefill_cost(shape, CPU, 73).flops + unseen
    prefix = model.prefill(before, tokens)
    other = torch.cat([tokens[:50], torch.randn(20, shape.language.width)])
    reused = stages.prefill_cost(shape, CPU, 73, 53).flops
    assert counted(lambda: model.prefill(before, other, prefix=prefix)) == reused and prefix.reused == 50

    suffixes = [list(range(3, 10)) for _ in range(4)]
    with torch.inference_mode():
        packs = []
        flops = counted(lambda: packs.append(PackedBatch(model, [PrefixGroup(prefix, suffixes)])))
        assert flops == stages.forward_cost(shape, CPU, 1, 28, 73 + 28, 4).flops
        flops = counted(lambda: packs[0].say([(i, 5) for i in range(4)]))
        assert flops == stages.forward_cost(shape, CPU, 1, 4, 73 + 28 + 4, 4).flops


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, each storage once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs or {})):
            if torch.is_tensor(tensor):
                self.known.add(id(tensor.untyped_storage()))  # was there before
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and id(storage := tensor.untyped_storage()) not in self.known:
                self.known.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self.gone, id(storage), storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def gone(self, storage: int, size: int) -> None:
        self.known.discard(storage)
        self.now -= size


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_memory_beside_weights_against_the_real_code(models, family):
    model = models(family)
    shape, tracked = model.info.shape, {}

    def most(run) -> int:
        with torch.inference_mode(), Alive() as alive:
            run()
        return alive.most

    tokens = torch.randn(400, shape.language.width)
    tracked["prefill"] = most(lambda: model.prefill([1], tokens))
    planned = shape.kv_bytes(401, 4) + stages.forward_bytes(shape, 4, 401)
    assert 0.7 * planned < tracked["prefill"] < 1.1 * planned
    pixels = torch.zeros(8, 336, 336, 3, dtype=torch.uint8)
    tracked["encode"] = most(lambda: model._encode(pixels, 8))
    planned = stages.encode_bytes(shape, 4, 8) + 2 * 8 * 576 * shape.language.width * 4
    assert 0.7 * planned < tracked["encode"] < 1.1 * planned


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
    tiled = [s for s in methods.settings if s.name in ("image grid", "thumbnail")]
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
    answer, groups = LlavaNext.answer_batch, []

    def watched(self, films, **options):
        groups.append([len(questions) for _, questions in films])
        return answer(self, films, **options)

    monkeypatch.setattr(LlavaNext, "answer_batch", watched)
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


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_the_command_needs_the_config_alone(checkpoints, tmp_path, capsys, layout):
    whole, folder = checkpoints("vicuna", layout), tmp_path / "model"
    (folder / "clip").mkdir(parents=True)
    for file in ("config.json", "clip/config.json"):
        if (whole / file).exists():
            shutil.copy(whole / file, folder / file)
    roofline = GPU.save(tmp_path / "gpu.json")
    common = ["plan", "nextqa", "--roofline", str(roofline), "--frames", "8", "12", "--json", "--model"]
    assert main([*common, str(folder)]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*common, str(whole)]) == 0
    tokenized = json.loads(capsys.readouterr().out)
    assert alone["parameters"] == tokenized["parameters"] and len(alone["settings"]) == 2
    assert [s["visual_tokens"] for s in alone["settings"]] == [2880 + 16 * 8, 2880 + 16 * 12]
    assert [s["prompt_tokens"] for s in alone["settings"]] != [s["prompt_tokens"] for s in tokenized["settings"]]


def test_parameters_of_a_loaded_model(models):
    for family in ("vicuna", "mistral", "chatml"):
        model = models(family)
        assert model.info.shape.parameters == sum(p.numel() for p in model.network.parameters())
        sizes = sizes_of(model.info.path)
        assert (sizes.shape, sizes.context, sizes.family) == (model.info.shape, model.info.context, model.info.family)
        assert sizes.shared_positions == model.shared_positions
    assert sizes_of("tiny").family == "tiny"


def test_questions_are_those_of_the_file(tmp_path, capsys):
    rows = ["video_name,question,answer", *(f"v{i % 3},what is it {i}?,x" for i in range(10))]
    (tmp_path / "q.csv").write_text("\n".join(rows) + "\n")
    roofline = str(GPU.save(tmp_path / "gpu.json"))
    common = ["plan", "open", "--model", "7b", "--roofline", roofline]
    assert main([*common, "--questions", str(tmp_path / "q.csv")]) == 0
    assert "10 questions about 3 videos" in capsys.readouterr().out
    assert main([*common, "--questions", str(tmp_path / "q.csv"), "--limit", "2"]) == 0
    assert "2 questions about 2 videos" in capsys.readouterr().out
    assert main([*common, "--questions", "700", "--videos", "100"]) == 0
    assert "700 questions about 100 videos" in capsys.readouterr().out
    for options, wanted in (
        ([], "open: needed a question file, or how many questions"),
        (["--questions", "5", "--videos", "9"], "at least one a video"),
        (["--limit", "5"], "--limit chooses from a question file"),
        (["--questions", str(tmp_path / "q.csv"), "--videos", "9"], "not one of each"),
        (["--dtype", "float32"], "measured in float16, not in float32"),
        (["--questions", "9", "--videos", "9", "--new-tokens", "200"], "between 1 and max_new_tokens"),
        (["--measure", "x.json"], "pass one of them"),
    ):
        assert main([*common, *options]) == 1
        assert wanted in capsys.readouterr().err


def test_unknown_names_list_what_there_is(tmp_path):
    with pytest.raises(SfllavaError, match=r"no model is called '8b'; there are 7b, 13b, mistral-7b, 34b, tiny, and"):
        plan("8b", DEFAULT, "nextqa", GPU)
    with pytest.raises(SfllavaError, match="no benchmark is called 'next'; there are activitynet"):
        plan("7b", DEFAULT, "next", GPU)
    with pytest.raises(SfllavaError, match="no ablation is called 'none'; there are fast_grid"):
        plan("7b", "none", "nextqa", GPU)
    with pytest.raises(SfllavaError, match="workers and video_frames must be at least 1, got 0"):
        plan("7b", DEFAULT, "nextqa", GPU, workers=0)
    with pytest.raises(SfllavaError, match=r"config\.json: no such file"):
        plan(str(tmp_path), DEFAULT, "nextqa", GPU)


def test_a_plan_is_a_frame():
    frame = plan("7b", "fast_grid", "nextqa", GPU).to_frame()
    assert list(frame["visual_tokens"][:2]) == [2930, 3280] and frame["fits"].all() and len(frame) == 7


def test_this_device_is_measured(tmp_path):
    found = measure("cpu")
    assert found.kind == "cpu" and found.dtype == "float32" and 0 < found.free_bytes <= found.memory_bytes
    assert load_roofline(found.save(tmp_path / "here" / "cpu.json")) == found
    assert all(speed > 0 for table in (found.move, found.linear, found.masked, found.causal) for *_, speed in table)
    with pytest.raises(SfllavaError, match="dtype must be auto, float32, float16, bfloat16, got 'int8'"):
        measure("cpu", "int8")


class Ticks:
    """A clock by which everything takes equally long, and 50 times as long while something else runs."""

    def __init__(self, *busy: range) -> None:
        self.busy, self.calls, self.now = busy, 0, 0.0

    def __call__(self) -> float:
        self.calls += 1
        self.now += 0.2 * (50 if any(self.calls in calls for calls in self.busy) else 1)
        return self.now


def test_a_short_disturbance_changes_no_plan_and_a_long_one_is_told(tmp_path, capsys, monkeypatch):
    # by this clock it makes no difference what is done
    monkeypatch.setattr(probes, "linear", lambda *_: None)
    monkeypatch.setattr(probes, "scaled_dot_product_attention", lambda *_, **__: None)
    monkeypatch.setattr(torch, "randn", torch.empty)
    clock = Ticks()
    alone, third = measure("cpu", clock=clock), clock.calls // 3
    assert alone.spread == 1 and not alone.warning and "differed" not in str(alone)

    def seconds(found: Roofline) -> float:
        return plan("tiny", DEFAULT, "nextqa", replace(found, free_bytes=2**40)).seconds

    for start in range(0, clock.calls, third):
        short = measure("cpu", clock=Ticks(range(start, start + third)))
        assert seconds(short) == pytest.approx(seconds(alone)) and not short.warning
    long = measure("cpu", clock=Ticks(range(2 * third)))
    assert long.spread == pytest.approx(50) and "the repeats differed by up to 50.00 times" in str(long)
    file = long.save(tmp_path / "busy.json")
    assert load_roofline(file) == long
    assert main(["plan", "nextqa", "--model", "tiny", "--roofline", str(file)]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "the device was busy while it was measured" in warning and "measure it again" in warning


def test_a_roofline_of_the_first_version_loads(tmp_path):
    values = json.loads(GPU.save(tmp_path / "gpu.json").read_text())
    del values["spread"]
    (tmp_path / "gpu.json").write_text(json.dumps(values))
    assert load_roofline(tmp_path / "gpu.json") == GPU and not GPU.warning


def test_answering_together_that_seems_to_lose_is_told():
    assert not plan("7b", DEFAULT, "egoschema", GPU).warnings
    # something else ran while the products of a few rows were measured
    speeds = {1: 1e14, 4: 1e10, 64: 1e10, 512: 1e14}
    busy = tuple((rows, width, speed) for rows, speed in speeds.items() for width in (64, 4096))
    made = plan("7b", [DEFAULT, Setting(20)], "egoschema", replace(GPU, linear=busy), new_tokens=5)
    (warning,) = made.warnings
    assert all(s.name in warning for s in made.settings) and "predicted slower than one question at a time" in warning
    assert f"warning: {warning}" in str(made) and made.to_dict()["warnings"] == [warning]


def test_speeds_between_sizes():
    table = ((1, 64, 1.0), (1, 256, 4.0), (100, 64, 100.0), (100, 256, 400.0))
    assert rate(table, 1, 64) == 1 and rate(table, 0.5, 8) == 1 and rate(table, 1000, 1000) == pytest.approx(400)
    assert rate(table, 10, 128) == pytest.approx(20) and rate(((1, 8, 3.0),), 5, 5) == pytest.approx(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("read"), "gpu.json: not a roofline: without read"),
        (lambda v: v.update(more=1), "gpu.json: not a roofline: what is more"),
        (lambda v: v.update(read="fast"), "gpu.json: read must be a number above 0, got 'fast'"),
        (lambda v: v.update(read=-1), "read must be a number above 0"),
        (lambda v: v.update(free_bytes=float("nan")), "free_bytes must be a number"),
        (lambda v: v.update(linear=[]), r"linear must be a list of \[rows, width, speed\]"),
        (lambda v: v.update(linear=[[1, 2, 3], [1, 4, 3], [2, 2, 3]]), "linear must have every width at every"),
        (lambda v: v.update(dtype="int8"), "dtype must be one of float32"),
        (lambda v: v.update(kind="tpu"), "kind must be cpu or cuda, got 'tpu'"),
    ],
)
def test_a_damaged_roofline_names_the_field(tmp_path, change, message):
    values = json.loads(GPU.save(tmp_path / "gpu.json").read_text())
    change(values)
    (tmp_path / "gpu.json").write_text(json.dumps(values))
    with pytest.raises(SfllavaError, match=message):
        load_roofline(tmp_path / "gpu.json")


def test_a_roofline_that_is_not_there(tmp_path):
    with pytest.raises(SfllavaError, match="no such roofline; `sfllava plan --measure"):
        load_roofline(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(SfllavaError, match=r"bad\.json: not readable as JSON"):
        load_roofline(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SfllavaError, match=r"list\.json: not a roofline: without"):
        load_roofline(tmp_path / "list.json")
