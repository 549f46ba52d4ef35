"""Two Ray workers on two cores against one, and against the plain process, on the same videos.

ShapesQA rendered here, and a model with random weights whose forwards take most of the time. Each way is one
`evaluate`: with a worker a core (each with one thread), with one worker on one core, and plain, with the threads that
torch takes by itself. Start-up (Ray, loading, until all workers are up) is told apart from the run.

What the machine itself allows is measured beside it: two processes without Ray, of one thread each, with half of the
videos each, against one such process with all videos. For each way the seconds of the model's stages are summed, so
that the rest (waiting, decoding, writing) is what remains of the workers' time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import save

from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.runs.evaluate import evaluate
from sfllava.runs.ray_runner import RayRunner
from sfllava.runs.run_folder import read_rows
from sfllava.settings import Setting

TEXT = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 6}
VISION = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4}
SETTING = Setting(16, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=80)
    parser.add_argument("--new-tokens", type=int, default=16)
    a = parser.parse_args()
    result: dict[str, Any] = {"what": f"evaluate on {a.videos} videos, seconds", "setting": SETTING.name}
    said = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = write_random_checkpoint(folder / "model", text=TEXT, vision=VISION)
        benchmark = load_benchmark("shapesqa", root=write_shapesqa(folder / "shapes", videos=a.videos))

        def run(model: Any, way: str, began: float) -> None:
            start = time.perf_counter()
            out = evaluate(model, benchmark, SETTING, folder / way, max_new_tokens=a.new_tokens, progress=False)
            rows = list(read_rows(out.path))
            said[way] = {row["key"]: row["token_ids"] for row in rows}
            times = {"start-up": start - began, "run": time.perf_counter() - start}
            result[way] = {name: round(seconds, 2) for name, seconds in times.items()} | {"rows": len(rows)}
            stages: Counter[str] = Counter()
            for row in rows:
                stages.update(row["seconds"])
            result[way]["stages"] = {stage: round(seconds, 2) for stage, seconds in stages.items()}

        began = time.perf_counter()
        run(load_model(checkpoint, "cpu"), "plain", began)
        for count, threads in ((2, None), (1, 1)):
            began = time.perf_counter()
            with RayRunner(checkpoint, count, device="cpu") as workers:
                workers._wait(lambda ready=workers, all_of=count: len(ready._idle()) == all_of)
                if threads:
                    workers.call(_threads, threads)
                run(workers, f"{count} workers", began)
        by_video = sorted({question.video for question in benchmark.questions})
        parts = [by_video, by_video[::2], by_video[1::2]]
        alone, *half = (_process(checkpoint, folder, part, i, a.new_tokens) for i, part in enumerate(parts))
        result["without Ray"] = {"1 process": _seconds([alone]), "2 processes": _seconds(half)}
    result["ratio of 1 worker on one core to 2 workers"] = round(
        result["1 workers"]["run"] / result["2 workers"]["run"], 2
    )
    both = result["without Ray"]
    result["ratio of 1 process to 2 processes without Ray"] = round(both["1 process"] / both["2 processes"], 2)
    result["rows equal"] = said["plain"] == said["1 workers"] == said["2 workers"]
    save("cluster", result)


def _process(checkpoint: Path, folder: Path, videos: list[str], number: int, new_tokens: int) -> tuple[Any, Any, Any]:
    """A process of one thread that evaluates some videos: the process, its start signal, and its seconds."""
    context = multiprocessing.get_context("spawn")
    start, seconds = context.Event(), context.Queue()
    made = context.Process(target=_evaluate, args=(checkpoint, folder, videos, number, new_tokens, start, seconds))
    made.start()
    return made, start, seconds


def _evaluate(
    checkpoint: Path, folder: Path, videos: list[str], number: int, new_tokens: int, start: Any, seconds: Any
) -> None:
    torch.set_num_threads(1)
    model = load_model(checkpoint, "cpu")
    benchmark = load_benchmark("shapesqa", root=folder / "shapes")
    questions = [question for question in benchmark.questions if question.video in set(videos)]
    seconds.put(0.0)  # ready
    start.wait()
    began = time.perf_counter()
    evaluate(
        model, replace(benchmark, questions=questions), SETTING, folder / f"process-{number}",
        max_new_tokens=new_tokens, progress=False,
    )  # fmt: skip
    seconds.put(time.perf_counter() - began)


def _seconds(processes: list[tuple[Any, Any, Any]]) -> float:
    """Start processes that are ready together, and return the seconds of the slowest."""
    for _, _, queue in processes:
        queue.get()
    for _, start, _ in processes:
        start.set()
    times = [queue.get() for _, _, queue in processes]
    for process, _, _ in processes:
        process.join()
    return round(max(times), 2)


def _threads(_: Any, threads: int) -> None:
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
