"""Is memory flat? Thousands of questions in one process: its memory, open files and processes on the way.

ShapesQA in both forms (open and choice) at four settings, in four runs one after the other, with the model called
tiny. What comes after a warm-up is fitted with a line; what is kept and should not be shows as its slope. The line is
of anonymous memory: the rest of what is resident are pages of files, which the kernel takes back and reads again as
the whole machine needs it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import save

from sfllava import Setting, load_benchmark, load_model
from sfllava.benchmarks import Benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.files import Row
from sfllava.models.base import ModelInfo
from sfllava.runs.evaluate import evaluate
from sfllava.runs.jobs import GenerationOptions, Job
from sfllava.runs.runner import LocalRunner

EVERY, TARGET = 200, 1.0  # questions from one sample to the next; MB per 1,000 questions
SETTINGS = [
    Setting(frames, f"slowfast-slow_{slow}frms_spatial_1d_max_pool-fast_4x4") for frames in (8, 16) for slow in (2, 4)
]


@dataclass
class Watched:
    """A model in this process (a `jobs.Runner`), and a sample of the process every EVERY questions."""

    here: LocalRunner
    answered: int = 0
    samples: list[dict[str, float]] = field(default_factory=list)

    @property
    def info(self) -> ModelInfo:
        return self.here.info

    def run(self, options: GenerationOptions, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        for rows in self.here.run(options, jobs):
            yield rows
            self.answered += sum(row["error"] is None for row in rows)
            if self.answered >= EVERY * (len(self.samples) + 1):
                self.samples.append({"questions": self.answered, **look()})

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.here.call(function, *args)


def look() -> dict[str, float]:
    """MB of this process and of its children (the decoding workers), open files of this process, processes."""
    process = psutil.Process()
    children = process.children(recursive=True)
    return {
        "process_mb": anonymous(process.pid),
        "children_mb": round(sum(anonymous(child.pid) for child in children), 2),
        "resident_mb": round(sum(one.memory_info().rss for one in (process, *children)) / 1e6, 2),
        "open_files": process.num_fds(),
        "processes": 1 + len(children),
    }


def anonymous(pid: int) -> float:
    """MB of resident memory that is of no file (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6, 2)


def fit(samples: list[dict[str, float]], *names: str) -> dict[str, float]:
    """The line through the sums of `names`, in MB per 1,000 questions, with the standard error of its slope."""
    x = np.array([sample["questions"] / 1000 for sample in samples])
    y = np.array([sum(sample[name] for name in names) for sample in samples])
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return {"slope": round(float(slope), 4), "error": round(float(covariance[0, 0] ** 0.5), 4),
            "first": round(float(y[0]), 2), "last": round(float(y[-1]), 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--warm-up", type=int, default=2000, help="questions (default: %(default)s)")
    a = parser.parse_args()
    watched = Watched(LocalRunner(load_model("tiny")))
    start, runs = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        root = write_shapesqa(folder, a.videos)
        rendered = time.perf_counter() - start
        for i, form in enumerate(("open", "choice", "open", "choice")):
            benchmark: Benchmark = load_benchmark(form, root / f"shapesqa_{form}.csv", root / "videos")
            settings = SETTINGS[:2] if i < 2 else SETTINGS[2:]
            run = evaluate(watched, benchmark, settings, root / f"run-{i}", max_new_tokens=8)
            runs += [{"form": form, **{k: s[k] for k in ("questions", "answered")}} for s in run.scores.values()]
    after = [sample for sample in watched.samples if sample["questions"] > a.warm_up]
    memory = fit(after, "process_mb", "children_mb")
    ends = {name: (min(s[name] for s in after), max(s[name] for s in after)) for name in ("open_files", "processes")}
    result: dict[str, Any] = {
        "what": "memory (MB), open files and processes over many questions; slopes in MB per 1,000 questions",
        "videos": a.videos, "settings": [setting.name for setting in SETTINGS], "questions": watched.answered,
        "runs": runs, "warm_up": a.warm_up, "every": EVERY,
        "seconds": {"render": round(rendered, 1), "all": round(time.perf_counter() - start, 1)},
        "slope": {
            "all": memory, "process": fit(after, "process_mb"), "children": fit(after, "children_mb"),
            "resident": fit(after, "resident_mb"),
        },
        "target": TARGET, **ends, "samples": watched.samples[::5],
    }  # fmt: skip
    save("soak", result)
    verdict = "flat" if memory["slope"] < TARGET and all(low == high for low, high in ends.values()) else "NOT FLAT"
    print(
        f"{verdict}: {memory['slope']:+.3f} MB per 1,000 questions (target < {TARGET:g}) over {watched.answered:,} "
        f"questions; open files {ends['open_files'][0]:g} to {ends['open_files'][1]:g}, "
        f"processes {ends['processes'][0]:g} to {ends['processes'][1]:g}"
    )


if __name__ == "__main__":
    main()
