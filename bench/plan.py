"""The seconds that `sfllava plan` predicts against those measured, by stage, for several settings on this machine.

The roofline of this machine is measured first. Then a model with random weights, large enough (0.3 GB) that they do not
stay in a cache, encodes, prefills and decodes each setting in float32. A ratio is predicted over measured seconds.
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
from typing import Any

import numpy as np
import torch
from common import save

from sfllava.benchmarks import Benchmark
from sfllava.benchmarks.base import load_spec
from sfllava.models.load import load_model
from sfllava.models.sizes import sizes_of
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.planning import plan
from sfllava.planning.roofline import Roofline, measure
from sfllava.settings import Setting
from sfllava.types import Question

TEXT = {"hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 6, "num_attention_heads": 8}
VISION = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 7, "num_attention_heads": 6}
Clock = Callable[[], float]
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
    parser.add_argument("--busy", action="store_true", help="other work runs: use one thread, and its processor time")
    options = parser.parse_args()
    if options.busy:
        torch.set_num_threads(1)
    clock = time.process_time if options.busy else time.perf_counter
    start = time.perf_counter()
    roofline = measure("cpu", clock=clock)
    seconds_to_measure, rows = time.perf_counter() - start, []
    with tempfile.TemporaryDirectory() as name:
        models = {}
        for family, frames, aggregation, count in CASES:
            if family not in models:
                models[family] = make_model(Path(name) / family, family)
            setting = Setting(frames, aggregation)
            rows.append(compare(models[family], family, setting, count, roofline, clock, options))
            print(rows[-1], flush=True)
    save("plan", {
        "what": "seconds that `sfllava plan` predicts to seconds measured, by stage of one video",
        "new_tokens": options.new_tokens, "repeats": options.repeats, "torch_threads": torch.get_num_threads(),
        "clock": "processor time of the one thread" if options.busy else "wall",
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "seconds_to_measure_the_roofline": round(seconds_to_measure, 1),
        "ratios": {stage: [row["ratio"][stage] for row in rows] for stage in rows[0]["ratio"]},
        "rows": rows, "roofline": asdict(roofline),
    })  # fmt: skip


def make_model(folder: Path, family: str) -> Any:
    heads = {"num_key_value_heads": 2 if family == "mistral" else 8}
    model = load_model(write_random_checkpoint(folder, family=family, text=TEXT | heads, vision=VISION), "cpu")
    model.language_model.eos_ids = set()  # every answer is as long as planned
    return model


def compare(
    model: Any, family: str, setting: Setting, count: int, roofline: Roofline, clock: Clock, options: Any
) -> dict[str, Any]:
    """Return predicted and measured seconds by stage, for one video with `count` questions."""
    questions = [Question(f"what is the {w} of the raft?", video="v") for w in range(count)]
    measured = time_stages(model, setting, questions, clock, options)
    planned = plan(
        sizes_of(model.info.path), setting,
        Benchmark(load_spec("open"), questions, None), roofline, max_new_tokens=options.new_tokens,
    )  # fmt: skip
    one = planned.settings[0]
    predicted = {stage: getattr(one, f"{stage}_seconds") for stage in ("encode", "prefill", "decode")}
    predicted["one question alone"] = planned.one_by_one_seconds / count
    return {
        "family": family, "setting": setting.name, "visual_tokens": one.visual_tokens, "questions": count,
        "prompt_tokens": one.prompt_tokens,
        "predicted": {stage: round(seconds, 3) for stage, seconds in predicted.items()},
        "measured": {stage: round(seconds, 3) for stage, seconds in measured.items()},
        "ratio": {stage: round(predicted[stage] / measured[stage], 2) for stage in measured},
    }  # fmt: skip


def time_stages(
    model: Any, setting: Setting, questions: list[Question], clock: Clock, options: Any
) -> dict[str, float]:
    frames = np.random.default_rng(0).integers(0, 255, (setting.frames, 336, 336, 3), np.uint8)
    tokens = setting.tokens(model.encode(frames))
    before, _ = model.info.prompt_ids(questions[0])
    repeats, new_tokens = options.repeats, options.new_tokens
    encode = median(clock, repeats, lambda: model.encode(frames))
    prefill = median(clock, repeats, lambda: model.prefill(before, tokens))
    answer = median(clock, repeats, lambda: model.answer(tokens, questions, max_new_tokens=new_tokens))
    alone = median(clock, 1, lambda: model.answer(tokens, questions[:1], share_prefix=False, max_new_tokens=new_tokens))
    return {"encode": encode, "prefill": prefill, "decode": answer - prefill, "one question alone": alone + encode}


def median(clock: Clock, repeats: int, run: Callable[[], object]) -> float:
    """Return the median seconds of some repeats, after a warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
