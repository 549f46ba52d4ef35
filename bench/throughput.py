"""Seconds by stage at 1, 4, 12 and 26 questions a video, against the per-question way and the arithmetic floor.

Random weights in the true shapes, nothing to download. On a GPU: 7B, and 34B where it fits, in bfloat16, decoding with
and without a CUDA graph. On a CPU: a small shape in float32. In either case the work of the true shapes is counted on
tensors without values: operations, bytes read and written, and kernels launched, for each stage.

The per-question way decodes, encodes and prefills the video again for each question, and says one token at a time.
The floor is each stage's operations at the best speed of a matrix product measured here, or its bytes (the weights,
and each prefix once a step) at the speed of memory measured here, whichever is longer.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from common import RESULTS, sample_video, save
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaNextForConditionalGeneration

from sfllava.benchmarks import load_benchmark
from sfllava.models import attention
from sfllava.models.families.llava_next import FAMILY
from sfllava.models.family import LoadOptions
from sfllava.models.known import KNOWN
from sfllava.models.layouts import CLIP_L_336
from sfllava.models.load import assemble
from sfllava.models.operations import Shape
from sfllava.models.packed_decoding import PackedBatch, PrefixGroup, StaticDecodeLoop, decode_steps
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.planning.roofline import measure
from sfllava.runs.evaluate import evaluate
from sfllava.runs.run_folder import read_rows
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting

SMALL_TEXT = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1376}
SMALL_TEXT |= {"num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8}
SMALL_TEXT |= {"max_position_embeddings": 4096}
SMALL_VISION = CLIP_L_336 | {"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 6}
SMALL_VISION |= {"num_attention_heads": 4}
# the widths of a 7B and of its tower, with few layers: what a CPU can run in a minute
SLICE = (KNOWN["7b"].config["text_config"] | {"num_hidden_layers": 2}, CLIP_L_336 | {"num_hidden_layers": 3})
SHAPES = {"small": (SMALL_TEXT, SMALL_VISION), "7b-slice": SLICE}
SHAPES |= {name: (KNOWN[name].config["text_config"], CLIP_L_336) for name in ("7b", "34b")}
_NO_KERNEL = {torch.ops.aten.detach, torch.ops.aten.detach_, torch.ops.aten.empty_like, torch.ops.aten.lift_fresh}
QUESTIONS = (1, 4, 12, 26)
SUFFIX, BEFORE = 24, 40  # tokens of a question, and of the text before the video
SETTING = Setting()


def build(name: str, folder: Path, device: str, dtype: torch.dtype) -> Any:
    """A network with random weights, or on "meta" with none, in one of the shapes."""
    text, vision = SHAPES[name]
    found = {"model_type": "llava_next", "text_config": dict(text), "vision_config": dict(vision)}
    made = FAMILY.configure(found, folder, LoadOptions())
    with torch.device(device):
        network: Any = LlavaNextForConditionalGeneration._from_config(
            made.config, dtype=dtype, attn_implementation="sdpa"
        )
    network.model.language_model.config._attn_implementation = attention.NAME
    return network


def wrap(network: Any, folder: Path) -> TransformersVideoLM:
    """The network as a model whose answers are all as long as may be."""
    model = assemble(
        network, Tokenizer(folder), FAMILY, FAMILY.configure(network.config.to_dict(), folder, LoadOptions(None)),
        path=folder, layout="", context=8192, fingerprint="",
    )  # fmt: skip
    model.language_model.eos_ids = set()
    network.generation_config.eos_token_id = None
    return model


class Work(TorchDispatchMode):
    """Counts what is done inside: operations, bytes in and out, and calls that would launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.bytes = 0
        self._flops = FlopCounterMode(display=False)
        self._more = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not (func.is_view or func.namespace == "prim" or func.overloadpacket in _NO_KERNEL):
            self._count([*pytree.tree_leaves((args, kwargs)), *pytree.tree_leaves(out)])
        return out

    def _count(self, tensors: list[Any]) -> None:
        found = {id(t): t for t in tensors if isinstance(t, torch.Tensor)}
        self.kernels += 1
        self.bytes += sum(t.numel() * t.element_size() for t in found.values())

    def _attention(self, query: Any, key: Any, value: Any, attn_mask: Any = None, **_: Any) -> Any:
        """On a GPU one kernel, which here would be taken apart."""
        out = torch.empty_like(query)
        self._count([query, key, value, attn_mask, out])
        seen = 0.5 if attn_mask is None and query.shape[-2] == key.shape[-2] and query.shape[-2] > 600 else 1
        self._more += int(4 * query.numel() * key.shape[-2] * seen)
        return out

    def __enter__(self) -> Work:
        self._plain = torch.nn.functional.scaled_dot_product_attention
        torch.nn.functional.scaled_dot_product_attention = self._attention
        self._flops.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._flops.__exit__(*error)
        torch.nn.functional.scaled_dot_product_attention = self._plain

    def row(self) -> dict[str, float]:
        flops = self._flops.get_total_flops() + self._more
        return {"tflop": round(flops / 1e12, 4), "gbytes": round(self.bytes / 1e9, 3), "kernels": self.kernels}


def counted(name: str, folder: Path, new: int) -> dict[str, Any]:
    """The work of one video's stages in a true shape, and of both ways at each number of questions."""
    side = np.zeros((SETTING.frames, 336, 336, 3), np.uint8)
    stages: dict[str, dict[str, float]] = {}
    network, visual = build(name, folder, "meta", torch.bfloat16), SETTING.token_count(24, 24)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        model = wrap(network.to_empty(device="meta"), folder)
        tokens = torch.empty(visual, model.info.shape.language.width, dtype=model.info.dtype, device="meta")

        def count(stage: str, run: Callable[[], Any]) -> Any:
            with Work() as work:
                out = run()
            stages[stage] = work.row()
            return out

        count("encode", lambda: model.encode(side))
        for n in QUESTIONS:
            prefix = model.new_prefixes(1)[0]
            count("prefill", lambda p=prefix: model.prefill([1] * BEFORE, tokens, 26 * (SUFFIX + new + 1), p))
            group = PrefixGroup(prefix, [[5] * SUFFIX] * n)
            pack = count(f"questions {n}", lambda g=group: PackedBatch(model.language_model, [g]))
            count(f"step {n}", lambda p=pack, k=n: p.decode_step([(i, 7) for i in range(k)]))
            steps = StaticDecodeLoop(pack, [7] * n, new)
            count(f"fixed step {n}", steps.step)
    ways = {}
    for n in QUESTIONS:
        ours = [(1, "encode"), (1, "prefill"), (1, f"questions {n}"), (new - 1, f"step {n}")]
        theirs = [(n, "encode"), (n, "prefill"), (n, "questions 1"), (n * (new - 1), "step 1")]
        both = {way: _sum(stages, parts) for way, parts in (("sfllava", ours), ("per question", theirs))}
        ways[n] = both | {"ratio": {k: round(both["per question"][k] / both["sfllava"][k], 2) for k in both["sfllava"]}}
    return {"stages": stages, "ways": ways}


def _sum(stages: dict[str, dict[str, float]], parts: list[tuple[int, str]]) -> dict[str, float]:
    return {key: round(sum(times * stages[stage][key] for times, stage in parts), 3) for key in stages["encode"]}


class Clock:
    """Seconds and, on a GPU, peak bytes by stage."""

    def __init__(self, device: torch.device) -> None:
        self._cuda, self.seconds = device.type == "cuda", {}
        self.peak = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._wait()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
        if self._cuda:
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def row(self, questions: int) -> dict[str, Any]:
        total = sum(self.seconds.values())
        row: dict[str, Any] = {name: round(seconds, 4) for name, seconds in self.seconds.items()}
        row |= {"total": round(total, 4), "per question": round(total / questions, 4)}
        return row | ({"peak_gb": round(self.peak / 1e9, 2)} if self.peak else {})


def timed(
    model: TransformersVideoLM, video: Path, n: int, new: int, repeats: int, alone: int | None = None
) -> dict[str, Any]:
    """Both ways at `n` questions about one video; the fastest of some repeats. One at a time, only `alone` of them."""
    suffixes = [[5 + i % 90] * SUFFIX for i in range(n)]
    side = (model.info.image_size, model.info.image_size)

    def tokens(clock: Clock) -> torch.Tensor:
        with clock.stage("decode video"):
            frames = read_video(video, SETTING.frames, size=side).frames
        with clock.stage("encode"):
            return SETTING.tokens(model.encode(frames))

    @torch.inference_mode()
    def shared(clock: Clock) -> list[list[int]]:
        visual = tokens(clock)
        said: list[list[int]] = [[] for _ in suffixes]
        with clock.stage("prefill"):
            prefix = model.prefill([1] * BEFORE, visual, n * (SUFFIX + new))
        with clock.stage("generate"):
            for live, following in decode_steps(model.language_model, [PrefixGroup(prefix, suffixes)], new, set()):
                for question, token in zip(live, following):
                    said[question].append(token)
        return said

    @torch.inference_mode()
    def one_by_one(clock: Clock) -> list[list[int]]:
        said = []
        for suffix in suffixes[:alone]:
            visual = tokens(clock)
            with clock.stage("prefill and generate"):
                prompt = model.language_model.prompt([1] * BEFORE, visual, suffix)
                said.append(model.language_model.generate(prompt, new))
        return said

    found: dict[str, Any] = {}
    ways: dict[str, Callable[[Clock], list[list[int]]]] = {"sfllava": shared, "per question": one_by_one}
    if model.info.device.type == "cuda":
        ways["sfllava, CUDA graph"] = shared
    said = {}
    for way, run in ways.items():
        model.language_model.graphs = way.endswith("graph")
        best: Clock | None = None
        for _ in range(repeats):
            clock = Clock(model.info.device)
            said[way] = run(clock)
            best = clock if best is None or sum(clock.seconds.values()) < sum(best.seconds.values()) else best
        assert best is not None
        found[way] = best.row(len(said[way]))
        model.language_model.graphs = False
    found["ratio"] = round(found["per question"]["per question"] / found["sfllava"]["per question"], 2)
    found["answers that differ"] = {way: sum(a != b for a, b in zip(ids, said["sfllava"])) for way, ids in said.items()}
    return found


@torch.inference_mode()
def profiled(model: TransformersVideoLM, video: Path, n: int, new: int, name: str) -> None:
    """Write the kernels of each stage at `n` questions, the longest first, to bench/results."""
    from torch.profiler import ProfilerActivity, profile

    cuda = model.info.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    frames = read_video(video, SETTING.frames, size=(model.info.image_size, model.info.image_size)).frames
    suffixes = [[5 + i % 90] * SUFFIX for i in range(n)]
    made: dict[str, Any] = {}

    def encode() -> None:
        made["tokens"] = SETTING.tokens(model.encode(frames))

    def prefill() -> None:
        made["prefix"] = model.prefill([1] * BEFORE, made["tokens"], n * (SUFFIX + new))

    def generate() -> None:
        list(decode_steps(model.language_model, [PrefixGroup(made["prefix"], suffixes)], new, set()))

    text = f"{name}, {n} questions of {new} new tokens, {model.info.device}\n"
    for stage in (encode, prefill, generate):
        stage()
        with profile(activities=activities) as profiler:
            stage()
        text += (
            f"\n{stage.__name__}\n{profiler.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60)}"
        )
    path = RESULTS / f"profile-{name}-{date.today().isoformat()}.txt"
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    print(path)


def floor(shape: Shape, speed: float, memory: float, width: int, n: int, new: int, visual: int) -> dict[str, float]:
    """Seconds by stage: operations at `speed`, or bytes at `memory`, the longer."""
    prefix, behind = visual + BEFORE, n * (SUFFIX + new)
    weights = (shape.language.weights + shape.language.width * shape.vocabulary) * width
    step = n * 2 * weights / width / speed, (weights + shape.kv_bytes(prefix + behind // 2, width)) / memory
    questions = shape.language.flops(n * SUFFIX, prefix) / speed
    row = {"encode": shape.encode_flops(SETTING.frames) / speed, "prefill": shape.prefill_flops(prefix) / speed}
    row["generate"] = max(questions, weights / memory) + (new - 1) * max(step)
    return {name: round(seconds, 4) for name, seconds in (row | {"total": sum(row.values())}).items()}


def many_videos(model: TransformersVideoLM, videos: int, new: int) -> dict[str, Any]:
    """As many videos with one question each: answered one after another, and together."""
    noise = torch.Generator().manual_seed(0)
    shape = (SETTING.token_count(*model.info.grid), model.info.shape.language.width)
    sides = [
        (torch.randn(shape, generator=noise).mul_(0.05), ["what is the color of the raft?"]) for _ in range(videos)
    ]
    sides = [(tokens.to(model.info.device, model.info.dtype), questions) for tokens, questions in sides]
    found: dict[str, Any] = {}
    said = {}
    for way, size in (("one by one", 1), ("together", videos)):
        clock = Clock(model.info.device)
        with clock.stage("answer"):
            groups = [sides[i : i + size] for i in range(0, videos, size)]
            answered = [answers for group in groups for answers in model.answer_batch(group, max_new_tokens=new)]
        said[way] = [answers[0].token_ids for answers in answered]
        found[way] = clock.row(videos)
    found["ratio"] = round(found["one by one"]["total"] / found["together"]["total"], 2)
    return found | {"answers that differ": sum(a != b for a, b in zip(*said.values()))}


def pipeline(model: TransformersVideoLM, video: Path, videos: int, new: int) -> dict[str, Any]:
    """`evaluate` over as many videos with 4 questions each: what share of the time the model was at work."""
    folder = Path(tempfile.mkdtemp(dir=video.parent))
    rows = ["video_name,question,answer"]
    for i in range(videos):
        shutil.copy(video, folder / f"v{i}.mp4")
        rows += [f"v{i},what is the {word} of the raft?,x" for word in ("color", "size", "place", "front")]
    (folder / "q.csv").write_text("\n".join(rows) + "\n")
    benchmark = load_benchmark("open", folder / "q.csv", folder)
    start = time.perf_counter()
    run = evaluate(model, benchmark, SETTING, folder / "run", max_new_tokens=new, progress=False)
    seconds = time.perf_counter() - start
    working = sum(sum(row["seconds"].values()) for row in read_rows(run.path))
    found = {"videos": videos, "questions": 4 * videos, "seconds": seconds, "model at work": working / seconds}
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--questions", nargs="+", type=int, default=QUESTIONS, help="questions about a video")
    parser.add_argument("--alone", type=int, help="questions that are answered one at a time; default: all")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), help="default: what fits the device")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: bfloat16 on a GPU, else float32")
    parser.add_argument("--no-count", action="store_true", help="leave out the count of operations of 7B and 34B")
    parser.add_argument("--profile", action="store_true", help="only the kernels of 12 questions, by time")
    a = parser.parse_args()
    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", a.dtype or "bfloat16") if cuda else ("cpu", a.dtype or "float32")
    roofline = measure(device, dtype)
    fitting = ["7b", "34b"] if cuda and roofline.memory_bytes > 90e9 else ["7b"] if cuda else ["small"]
    names = a.shape or fitting
    result: dict[str, Any] = {
        "what": f"{SETTING.frames} frames, {SETTING.name}, {a.new_tokens} new tokens; seconds, the best of {a.repeats}",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_checkpoint(folder)
        video = sample_video(folder)
        for shape in names:
            model = wrap(build(shape, folder, device, getattr(torch, dtype)), folder)
            visual = SETTING.token_count(*model.info.grid)
            timed(model, video, 1, 4, 1)  # warms up
            if a.profile:
                profiled(model, video, 12, a.new_tokens, shape)
                continue
            rows = {}
            for n in a.questions:
                # a shared machine is not equally fast all the time
                now = measure(device, dtype) if rows else roofline
                speed = max(rate for _, _, rate in now.linear)
                rows[n] = timed(model, video, n, a.new_tokens, a.repeats, a.alone)
                size = (speed, now.read, model.info.dtype.itemsize)
                rows[n]["floor"] = least = floor(model.info.shape, *size, n, a.new_tokens, visual)
                stages = ("encode", "prefill", "generate")
                rows[n]["floor of"] = {
                    "product_tflops": round(speed / 1e12, 3),
                    "read_gbytes_a_second": round(now.read / 1e9, 1),
                }
                rows[n]["of the floor"] = round(sum(rows[n]["sfllava"][s] for s in stages) / least["total"], 2)
            result[shape] = {"visual_tokens": visual, "dtype": dtype, "questions": rows}
            result[shape]["videos with one question"] = many_videos(model, a.videos, a.new_tokens)
            result[shape]["pipeline"] = pipeline(model, video, a.videos, a.new_tokens)
            del model
        if a.profile:
            return
        count = partial(counted, folder=folder, new=a.new_tokens)
        if not a.no_count:
            result["counted"] = {shape: count(shape) for shape in ("7b", "34b")}
    save("-".join(["throughput", *(a.shape or []), *([a.dtype] if a.dtype else [])]), result)


if __name__ == "__main__":
    main()
