"""Benchmarks of a test's own, and written runs whose questions have groups."""

from __future__ import annotations

import sys
import types

from written_runs import write_run

from sfllava.benchmarks import base
from sfllava.benchmarks.spec import Headline, Spec

TASKS = {"plot": 30, "needle": 6, "count": 4}
"""Questions of each type in `tasks_rows`."""
BY_TYPE = Spec(name="tasks", task="choice", headline=Headline("M-Avg", ("type",)))
FORMS = Spec(name="forms", task="choice", headline=Headline("mean over forms and dimensions", ("form", "dimension")))
OPTIONS = {"choice": ["x", "y"], "yes_no": [], "caption_matching": ["Caption A: x", "Caption B: y"]}
RIGHT = {"choice": "x", "yes_no": "yes", "caption_matching": "Caption A: x"}
SAID = {"choice": ("A", "B"), "yes_no": ("Yes.", "No"), "caption_matching": ("Caption A", "Caption B")}


def add_benchmark(monkeypatch, spec: Spec) -> Spec:
    """Make a benchmark known by its name, as a file in benchmarks/ does."""
    module = types.ModuleType(f"sfllava.benchmarks.{spec.name}")
    module.SPEC = spec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    known = base.benchmark_names
    monkeypatch.setattr(base, "benchmark_names", lambda: sorted({*known(), spec.name}))
    return spec


def tasks_rows(setting, right, videos_per_task=None):
    """Choice questions of three types; of each type the first `right[type]` are answered correctly."""
    rows = []
    for kind, count in TASKS.items():
        for i in range(count):
            rows.append(
                {
                    "key": f"tasks/{kind}/{i}",
                    "setting": setting,
                    "type": kind,
                    "video": f"{kind}{i // 2}",
                    "answer": "x",
                    "options": ["x", "y"],
                    "prediction": "A" if i < right[kind] else "B",
                    "groups": {"duration": ("short", "long")[i % 2]},
                }
            )
    return rows


def form_rows(setting, chance, videos=12):
    """Questions in three forms on two dimensions about each video; right where `chance(form, dimension, video)`."""
    rows = []
    for video in range(videos):
        for task in OPTIONS:
            for dimension in ("action", "order"):
                right = chance(task, dimension, video)
                rows.append(
                    {
                        "key": f"forms/{task}/{dimension}/{video}",
                        "setting": setting,
                        "type": dimension,
                        "video": f"v{video}",
                        "answer": RIGHT[task],
                        "options": OPTIONS[task],
                        "prediction": SAID[task][not right],
                        "groups": {"form": task, "dimension": dimension},
                        **({} if task == "choice" else {"task": task}),
                    }
                )
    return rows


def tasks_run(folder, *settings, complete=None, **facts):
    """A run on `BY_TYPE`, with (name, right answers by type) for each setting."""
    rows = [row for name, right in settings for row in tasks_rows(name, right)]
    return write_run(folder, rows, "tasks", headline_sizes=complete or TASKS, **facts)
