"""What only a GPU can show: memory that runs out, number formats, 4 and 8 bits, a CUDA graph, two workers on one card.

Part of `bench/gpu.sh`. Each check is on its own: one that fails is recorded with its error, and the next one runs.
Without a GPU the checks that need one say so, and the others run on the CPU.

- memory: ballast takes all but a little of the card's memory. Frames and questions that do not fit together are
  answered in smaller batches, with the token ids of the run that had enough memory.
- dtype: ShapesQA with the small model in float32, bfloat16 and float16; paired differences.
- quantize: the same in int8 and nf4.
- graph: decoding with and without a CUDA graph; seconds, and whether the token ids are equal.
- workers: `sfllava evaluate --workers 2` on one card, and what it says.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import save

from sfllava.analysis.differences import paired_differences
from sfllava.analysis.loading import load_results
from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.runs.evaluate import evaluate
from sfllava.settings import Setting

SHAPESQA = Setting(16, "slowfast-slow_4frms_spatial_1d_max_pool-fast_4x4")
TEXT = {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 1376}
TEXT |= {"num_attention_heads": 8, "num_key_value_heads": 8}
WORDS = ("raft", "river", "woman", "gym", "panda", "grass", "barrels", "ground")


class NeedsGpu(Exception):
    """A check that means nothing without a GPU."""


def check_memory(folder: Path, shapes: Path) -> dict[str, Any]:
    """Answer with little free memory, and with enough."""
    if not torch.cuda.is_available():
        raise NeedsGpu
    model = load_model(write_random_checkpoint(folder / "random", text=TEXT), "cuda", dtype="float32")
    frames = np.random.default_rng(0).integers(0, 255, (50, 336, 336, 3), np.uint8)
    questions = [f"what is the color of the {WORDS[i % len(WORDS)]} in part {i}?" for i in range(200)]
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("sfllava").addHandler(handler)

    def answer() -> list[Any]:
        tokens = Setting().tokens(model.encode(frames))
        return [a.token_ids for a in model.answer(tokens, questions, max_new_tokens=16)]

    torch.cuda.reset_peak_memory_stats()
    expected, peak = answer(), torch.cuda.max_memory_allocated()
    used = torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    # what is left is between what a few questions need and what all of them need
    left = int((peak - used) * 0.5)
    ballast = torch.empty(torch.cuda.mem_get_info()[0] - left, dtype=torch.uint8, device="cuda")
    found = answer()
    del ballast
    return {
        "peak_gib_with_enough": round(peak / 2**30, 2),
        "gib_left": round(left / 2**30, 2),
        "smaller_batches": warnings,
        "answers_that_differ": sum(a != b for a, b in zip(found, expected)),
    }


def check_runs(folder: Path, shapes: Path, ways: dict[str, dict[str, Any]], device: str) -> dict[str, Any]:
    """ShapesQA with the small model in several ways; differences from the first one, paired by question."""
    benchmark, runs = load_benchmark("shapesqa", root=shapes), []
    found: dict[str, Any] = {}
    for name, options in ways.items():
        model = load_model("tiny", device, **options)
        start = time.perf_counter()
        run = evaluate(model, benchmark, SHAPESQA, folder / name, max_new_tokens=16, progress=False)
        found[name] = {"seconds": round(time.perf_counter() - start, 2)}
        runs.append(run.path)
    table = paired_differences(load_results(runs), f"{runs[0].name}: {SHAPESQA.name}")
    return found | {"differences": table.to_dict("records")}


def check_dtype(folder: Path, shapes: Path) -> dict[str, Any]:
    """The dtypes of the device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = ("float32", "bfloat16", "float16") if device == "cuda" else ("float32", "bfloat16")
    return check_runs(folder, shapes, {name: {"dtype": name} for name in names}, device)


def check_quantize(folder: Path, shapes: Path) -> dict[str, Any]:
    """4 and 8 bits against full precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ways: dict[str, dict[str, Any]] = {"full": {}, "int8": {"quantize": "int8"}, "nf4": {"quantize": "nf4"}}
    return check_runs(folder, shapes, ways, device)


def check_graph(folder: Path, shapes: Path) -> dict[str, Any]:
    """One launch per new token instead of hundreds."""
    if not torch.cuda.is_available():
        raise NeedsGpu
    model = load_model(write_random_checkpoint(folder / "random", text=TEXT), "cuda", dtype="float32")
    tokens = torch.randn(3680, TEXT["hidden_size"], device="cuda") * 0.3
    questions = [f"what is the color of the {word}?" for word in WORDS]
    seconds, answers = {}, {}
    for graphs in (False, True, False, True):
        model.language_model.graphs = graphs
        torch.cuda.synchronize()
        start = time.perf_counter()
        answers[graphs] = [a.token_ids for a in model.answer(tokens, questions, max_new_tokens=64)]
        torch.cuda.synchronize()
        seconds["with" if graphs else "without"] = round(time.perf_counter() - start, 4)
    return {"seconds": seconds, "answers_that_differ": sum(a != b for a, b in zip(answers[False], answers[True]))}


def check_workers(folder: Path, shapes: Path) -> dict[str, Any]:
    """Two workers on what there is: refused in one line on one card, or run."""
    command = [sys.executable, "-m", "sfllava.cli", "evaluate", "shapesqa", "--root", str(shapes), "--model", "tiny"]
    command += ["--workers", "2", "--limit", "40", "--max-new-tokens", "4", "--out", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return {"gpus": torch.cuda.device_count(), "exit_status": done.returncode, "last_lines": lines[-3:]}


CHECKS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "memory": check_memory, "dtype": check_dtype, "quantize": check_quantize,
    "graph": check_graph, "workers": check_workers,
}  # fmt: skip


def run_checks(names: Sequence[str], videos: int) -> dict[str, Any]:
    """Run the checks and save what they found after each; its result, or the reason why there is none."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        shapes = write_shapesqa(Path(name) / "shapes", videos=videos)
        for check in names:
            folder, start = Path(name) / check, time.perf_counter()
            folder.mkdir()
            try:
                result[check] = CHECKS[check](folder, shapes)
            except NeedsGpu:
                result[check] = {"skipped": "it needs a GPU"}
            except Exception as error:  # the others still run
                result[check] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
            result[check]["took_seconds"] = round(time.perf_counter() - start, 1)
            save("gpu", result)
    return result


def main() -> int:
    """Run the checks and save their results; 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], help="the checks to run (default: all)")
    parser.add_argument("--videos", type=int, default=100, help="videos of ShapesQA (default: %(default)s)")
    chosen = parser.parse_args()
    result = run_checks(chosen.checks or list(CHECKS), chosen.videos)
    return int(any("error" in row for row in result.values()))


if __name__ == "__main__":
    sys.exit(main())
