"""The explorer on the small model: another pooling against a cold ask at 50 frames, and a slider's move of the budget.

A cold ask decodes, encodes, prefills and generates; after a change of pooling only what follows the patch grid is left.
The decoding process of a cold ask is started anew, as for every video that the explorer opens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from common import sample_video, save

import sfllava
from sfllava.explorer import Session
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.settings import Setting
from sfllava.types import Question

QUESTION = Question("What colour is the small square?")
COLD = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
POOLED = ("slowfast-slow_10frms_spatial_2d_avg_pool-fast_4x4", "slowfast-slow_10frms_spatial_1d_max_pool-fast_2x4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--frames", type=int, default=50)
    a = parser.parse_args()
    model = sfllava.load_model("tiny")
    seconds: dict[str, list[float]] = {"cold": [], "cold_without_decoding": [], "slow_pool": [], "fast_grid": []}
    with tempfile.TemporaryDirectory() as folder:
        video = sample_video(Path(folder))
        for _ in range(a.repeats + 1):
            session = Session(model, FeatureCache(model))
            start = time.perf_counter()
            cold = session.answer(video, Setting(a.frames, COLD), QUESTION)
            seconds["cold"].append(time.perf_counter() - start)
            seconds["cold_without_decoding"].append(seconds["cold"][-1] - cold.seconds["decode"])
            assert (cold.decoded_frames, cold.encoded_frames) == (a.frames, a.frames)
            for name, pooled in zip(("slow_pool", "fast_grid"), POOLED):
                setting = Setting(a.frames, pooled)
                start = time.perf_counter()
                again = session.answer(video, setting, QUESTION)
                seconds[name].append(time.perf_counter() - start)
                plain = sfllava.ask(model, session.video(video, a.frames), [QUESTION], setting).answers[0]
                assert (again.decoded_frames, again.encoded_frames) == (0, 0)
                assert again.token_ids == plain.token_ids, "kept features give another answer"
        explorer = sfllava.explore(model, str(video), QUESTION.text, Setting(a.frames, COLD))
        explorer.wait()
        moves = []
        for slow in (*range(1, 31), *range(30, 0, -1)):
            before, start = explorer.widget.budget, time.perf_counter()
            explorer.widget.slow = slow  # returns once the new budget is sent
            moves.append(time.perf_counter() - start)
            assert explorer.widget.budget != before or slow in (1, 30)
        explorer.wait()
    seconds = {name: times[1:] for name, times in seconds.items()}  # the first round warms up
    median = {name: statistics.median(times) for name, times in seconds.items()}
    save("explorer", {
        "what": f"tiny model, {a.frames} frames: seconds (median of {a.repeats}) of an ask, cold and after a change",
        "median": {name: round(value, 4) for name, value in median.items()},
        "ratio_to_cold": {name: round(median[name] / median["cold"], 3) for name in ("slow_pool", "fast_grid")},
        "ratio_to_cold_without_decoding": {
            name: round(median[name] / median["cold_without_decoding"], 3) for name in ("slow_pool", "fast_grid")
        },
        "budget_redraw_ms": {
            "median": round(1000 * statistics.median(moves), 2), "longest": round(1000 * max(moves), 2),
            "moves": len(moves),
        },
        "token_ids_equal": True,
    })  # fmt: skip


if __name__ == "__main__":
    main()
