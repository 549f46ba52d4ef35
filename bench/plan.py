"""What `sfllava plan` says against what the real code takes: seconds by stage, over several settings, on this machine.

The roofline of this machine is measured first; then a model with random weights, wide enough that its weights (0.3 GB)
do not stay in a cache, encodes, prefills and decodes each setting, which is timed. float32. The ratio is predicted
seconds to measured seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from common import save

from sfllava.benchmarks import Benchmark
from sfllava.benchmarks.base import load_spec
from sfllava.models.load import load_model
from sfllava.models.sizes import sizes_of
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.planning import plan
from sfllava.planning.roofline import measure
from sfllava.settings import Setting
from sfllava.types import Question

TEXT = {"hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 6, "num_attention_heads": 8}
VISION = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 7, "num_attention_heads": 6}
# (family, frames, aggregation, questions)
CASES = (
    ("vicuna", 8, "slowfast-slow_0frms_spatial_1d_max_pool-fast_4x4", 4),
    ("vicuna", 16, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4", 1),
    ("vicuna", 16, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4", 12),
    ("vicuna", 16, "slowfast-slow_10frms_spatial_1d_max_pool-fast_6x6", 8),
    ("mistral", 16, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4", 8),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="other work runs: one thread, and its processor time")
    a = parser.parse_args()
    if a.busy:
        torch.set_num_threads(1)
    clock = time.process_time if a.busy else time.perf_counter
    start = time.perf_counter()
    roofline = measure("cpu", clock=clock)
    measuring, rows = time.perf_counter() - start, []
    with tempfile.TemporaryDirectory() as name:
        models = {}
        for family, frames, aggregation, count in CASES:
            if family not in models:
                heads = {"num_key_value_heads": 2 if family == "mistral" else 8}
                folder = write_random_checkpoint(Path(name) / family, family=family, text=TEXT | heads, vision=VISION)
                models[family] = load_model(folder, "cpu")
                models[family].language_model.eos_ids = set()  # every answer is as long as planned
            model, setting = models[family], Setting(frames, aggregation)
            questions = [Question(f"what is the {w} of the raft?", video="v") for w in range(count)]
            pixels = np.random.default_rng(0).integers(0, 255, (frames, 336, 336, 3), np.uint8)
            tokens = setting.tokens(model.encode(pixels))
            before, _ = model.info.prompt_ids(questions[0])
            found = {
                "encode": median(clock, a.repeats, lambda m=model, x=pixels: m.encode(x)),
                "prefill": median(clock, a.repeats, lambda m=model, b=before, t=tokens: m.prefill(b, t)),
            }
            answer = median(
                clock, a.repeats, lambda m=model, t=tokens, q=questions: m.answer(t, q, max_new_tokens=a.new_tokens)
            )
            found["decode"] = answer - found["prefill"]
            alone = median(
                clock,
                1,
                lambda m=model, t=tokens, q=questions: m.answer(
                    t, q[:1], share_prefix=False, max_new_tokens=a.new_tokens
                ),
            )
            made = plan(
                sizes_of(model.info.path), setting,
                Benchmark(load_spec("open"), questions, None), roofline, max_new_tokens=a.new_tokens,
            )  # fmt: skip
            one = made.settings[0]
            said = {stage: getattr(one, f"{stage}_seconds") for stage in found}
            found["one question alone"] = alone + found["encode"]
            said["one question alone"] = made.one_by_one_seconds / count
            rows.append({
                "family": family, "setting": setting.name, "visual_tokens": one.visual_tokens, "questions": count,
                "prompt_tokens": one.prompt_tokens,
                "predicted": {stage: round(x, 3) for stage, x in said.items()},
                "measured": {stage: round(x, 3) for stage, x in found.items()},
                "ratio": {stage: round(said[stage] / found[stage], 2) for stage in found},
            })  # fmt: skip
            print(rows[-1], flush=True)
    ratios = {stage: [row["ratio"][stage] for row in rows] for stage in rows[0]["ratio"]}
    save("plan", {
        "what": "seconds that `sfllava plan` predicts to seconds measured, by stage of one video",
        "new_tokens": a.new_tokens, "repeats": a.repeats, "torch_threads": torch.get_num_threads(),
        "clock": "processor time of the one thread" if a.busy else "wall",
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "seconds_to_measure_the_roofline": round(measuring, 1),
        "ratios": ratios, "rows": rows, "roofline": asdict(roofline),
    })  # fmt: skip


def median(clock: Callable[[], float], repeats: int, run: Callable[[], object]) -> float:
    """Seconds, after a warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
