"""The numbers of the paper (arXiv 2407.15841): the main table is here, those of the ablations are in ablations/."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from sfllava import catalogue
from sfllava.ablation import load_ablation
from sfllava.benchmarks.base import load_spec
from sfllava.models.sizes import sizes_of
from sfllava.settings import Setting
from sfllava.types import SfllavaError

PAPER = "SlowFast-LLaVA (arXiv 2407.15841)"
JUDGE = "gpt-3.5-turbo-0125"
"""The judge of open-ended answers in the paper; it is retired."""
SIZES = ("7b", "34b")
"""LLaVA-NeXT with Vicuna 7B and with Nous-Hermes-2-Yi 34B, by their names in `models.known.KNOWN`."""
MAIN_TABLE = "main"
SCORES = ("CI", "DO", "CU", "TU", "CO", "average")
"""VCGBench: correctness, detail, context, temporal understanding, consistency, and their mean."""
MAIN: dict[str, dict[str, dict[str, float]]] = {
    "7b": {
        "msvd": {"accuracy": 79.1, "score": 4.1},
        "msrvtt": {"accuracy": 65.8, "score": 3.6},
        "tgif": {"accuracy": 78.7, "score": 4.2},
        "activitynet": {"accuracy": 55.5, "score": 3.4},
        "nextqa": {"accuracy": 64.2},
        "egoschema": {"accuracy": 47.2},
        "intentqa": {"accuracy": 60.1},
        "vcgbench": dict(zip(SCORES, (3.09, 2.70, 3.57, 2.52, 3.35, 3.04))),
    },
    "34b": {
        "msvd": {"accuracy": 79.9, "score": 4.1},
        "msrvtt": {"accuracy": 67.4, "score": 3.7},
        "tgif": {"accuracy": 80.6, "score": 4.3},
        "activitynet": {"accuracy": 59.2, "score": 3.5},
        "nextqa": {"accuracy": 72.0},
        "egoschema": {"accuracy": 55.8},
        "intentqa": {"accuracy": 66.5},
        "vcgbench": dict(zip(SCORES, (3.48, 2.96, 3.84, 2.77, 3.57, 3.32))),
    },
}
"""Model size -> benchmark -> measure -> number, at 50 frames and the default aggregation."""


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper and the setting that it was measured at.

    Attributes:
        table: "main", or the name of an ablation.
        benchmark: The name of the benchmark.
        size: The model, a name in `SIZES`.
        label: The row in an ablation; empty in the main table.
        setting: Frames and aggregation, with their name in a run.
        measure: "accuracy" (percent), "score" (0 to 5), or one of `SCORES` (0 to 5).
        value: The number; None if the paper reports out of memory.
    """

    table: str
    benchmark: str
    size: str
    label: str
    setting: Setting
    measure: str
    value: float | None

    @property
    def run(self) -> str:
        """The name of the run that measures it, which is also its folder."""
        return f"{self.size}/{self.benchmark}"

    @property
    def percent(self) -> bool:
        """Whether it is a percentage rather than a score from 0 to 5."""
        return self.measure == "accuracy"

    @property
    def decimals(self) -> int:
        """The number of decimals in the paper."""
        return 2 if self.measure in SCORES else 1


@lru_cache(maxsize=1)
def paper_numbers() -> tuple[PaperNumber, ...]:
    """Return all numbers of the paper: the main table, then each ablation with a PAPER."""
    main = [
        PaperNumber(MAIN_TABLE, benchmark, size, "", Setting(), measure, value)
        for size, benchmarks in MAIN.items()
        for benchmark, measures in benchmarks.items()
        for measure, value in measures.items()
    ]
    return (*main, *(number for name in catalogue.names("ablations") for number in _ablation_numbers(name)))


def _ablation_numbers(name: str) -> list[PaperNumber]:
    ablation = load_ablation(name)
    if not ablation.paper:
        return []
    # benchmark -> size -> label -> number, so that a report has the rows of one model together
    found = []
    for benchmark in dict.fromkeys(benchmark for row in ablation.paper.values() for benchmark in row):
        for size in SIZES:
            settings = {s.name: s for s in ablation.settings(sizes_of(size), load_spec(benchmark).task)}  # type: ignore[arg-type]  # it reads grid and family
            for label, row in ablation.paper.items():
                known = {key.lower(): value for key, value in row.get(benchmark, {}).items()}
                if label not in settings:
                    raise SfllavaError(f"ablation {name}: PAPER has {label!r}, which is not one of its settings")
                if size in known:
                    # without the ablation's label, so that tables share the setting
                    setting = replace(settings[label], label="")
                    found.append(PaperNumber(name, benchmark, size, label, setting, "accuracy", known[size]))
    return found


def tables() -> tuple[str, ...]:
    """Return the names of the paper's tables: main, and the ablations that have numbers."""
    return tuple(dict.fromkeys(number.table for number in paper_numbers()))


def benchmarks() -> tuple[str, ...]:
    """Return the names of the benchmarks in the paper."""
    return tuple(dict.fromkeys(number.benchmark for number in paper_numbers()))
