"""The tiny model on ShapesQA: accuracy by setting and family, and differences at equal token budget.

`python bench/tiny_curves.py [--videos 100] [--card]` renders the test split, evaluates it over SETTINGS through
`sfllava.evaluate`, prints the tables, and saves them under bench/results; --card also puts them in the model card.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfllava import Setting, evaluate, load_model
from sfllava.benchmarks import Benchmark, load_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.evaluation import versions
from sfllava.models.load import TINY
from sfllava.results import interval
from sfllava.runfolder import read_rows
from sfllava.scoring import EVALUATORS
from sfllava.types import Question

RESULTS = Path(__file__).with_name("results")
SLOW, FAST = "slowfast-slow_{}frms_{}-fast_0x0", "slowfast-slow_0frms_concat-fast_{}"
BOTH = "slowfast-slow_{}frms_{}-fast_{}"
SETTINGS = (
    Setting(1, SLOW.format(1, "concat"), "slow 1 x 8x8"),
    Setting(2, SLOW.format(2, "concat"), "slow 2 x 8x8"),
    Setting(4, SLOW.format(4, "concat"), "slow 4 x 8x8"),
    Setting(8, SLOW.format(8, "spatial_1d_max_pool"), "slow 8 x 8x4"),
    Setting(8, SLOW.format(8, "concat"), "slow 8 x 8x8"),
    Setting(32, FAST.format("1x1"), "fast 32 x 1x1"),
    Setting(32, FAST.format("2x2"), "fast 32 x 2x2"),
    Setting(64, FAST.format("2x2"), "fast 64 x 2x2"),
    Setting(16, FAST.format("4x4"), "fast 16 x 4x4"),
    Setting(32, FAST.format("4x4"), "fast 32 x 4x4"),
    Setting(32, BOTH.format(1, "concat", "1x1"), "slow 1 x 8x8 + fast 32 x 1x1"),
    Setting(32, BOTH.format(2, "concat", "2x2"), "slow 2 x 8x8 + fast 32 x 2x2"),
    Setting(32, BOTH.format(4, "spatial_1d_max_pool", "2x2"), "slow 4 x 8x4 + fast 32 x 2x2"),
    Setting(32, BOTH.format(4, "concat", "2x2"), "slow 4 x 8x8 + fast 32 x 2x2"),
)
# all of 256 tokens: SlowFast, and what it is compared with
EQUAL = ("slow 2 x 8x8 + fast 32 x 2x2", ("slow 4 x 8x8", "slow 8 x 8x4", "fast 64 x 2x2", "fast 16 x 4x4"))
FAMILIES = ("detail", "moment")


def right(question: Question, prediction: str | None) -> bool:
    """Whether a prediction is right by the strict rule of its task."""
    evaluator = EVALUATORS[question.task]
    assert evaluator is not None
    rule = "choice-strict" if question.task == "choice" else "match-exact"
    return evaluator(question, prediction or "")[rule].correct


def measure(model: Any, benchmarks: list[Benchmark], out: Path) -> dict[str, dict[str, bool]]:
    """Setting -> question key -> right; a question that failed counts as wrong."""
    results: dict[str, dict[str, bool]] = {setting.name: {} for setting in SETTINGS}
    for benchmark in benchmarks:
        by_key = {question.key: question for question in benchmark.questions}
        run = evaluate(model, benchmark, SETTINGS, out / benchmark.name, max_new_tokens=8, progress=False)
        for row in read_rows(run.path):
            results[row["setting"]][row["key"]] = right(by_key[row["key"]], row["prediction"])
    return results


def text_only(model: Any, questions: list[Question]) -> dict[str, bool]:
    """Question key -> right, of a model that gets no visual tokens at all."""
    width = model.network.config.text_config.hidden_size
    answers = model.answer(torch.zeros(0, width), questions, max_new_tokens=8)
    return {question.key: right(question, answer.text) for question, answer in zip(questions, answers)}


def tables(results: dict[str, dict[str, bool]], questions: list[Question], budgets: dict[str, int]) -> dict[str, Any]:
    """All numbers: by setting and family, by kind of question, and the differences at equal budget."""
    videos = np.array([q.video for q in questions])
    family = np.array([q.type.split("-")[0] for q in questions])
    kinds = np.array([q.type for q in questions])
    masks = {name: family == name for name in FAMILIES} | {"both": np.ones(len(questions), bool)}
    values = {name: np.array([by_key[q.key] for q in questions], float) for name, by_key in results.items()}
    accuracy = {
        name: {part: interval(row[mask], videos[mask]) for part, mask in masks.items()} for name, row in values.items()
    }
    by_kind = {
        name: {str(kind): 100 * float(row[kinds == kind].mean()) for kind in np.unique(kinds)}
        for name, row in values.items()
    }
    mine, others = EQUAL
    differences = {
        other: {part: interval((values[mine] - values[other])[mask], videos[mask]) for part, mask in masks.items()}
        for other in others
    }
    counts = {part: int(mask.sum()) for part, mask in masks.items()}
    return {"counts": counts, "budgets": budgets, "accuracy": accuracy, "kinds": by_kind, "differences": differences}


def markdown(found: dict[str, Any], facts: dict[str, Any]) -> str:
    """The tables in Markdown."""
    counts, parts = found["counts"], (*FAMILIES, "both")
    head = "| tokens | " + " | ".join(f"{part} (n = {counts[part]})" for part in parts) + " |"
    lines = [
        f"ShapesQA, test split, seed {facts['seed']}: {facts['videos']} videos, {counts['both']} questions, half of",
        "them open and half multiple choice. Percent right [95 % interval, whole videos drawn anew].",
        "",
        f"| setting {head}",
        "|---|---:|---|---|---|",
    ]
    for name, row in found["accuracy"].items():
        cells = " | ".join("{:.1f} [{:.1f}, {:.1f}]".format(*row[part]) for part in parts)
        lines.append(f"| {name} | {found['budgets'].get(name, 0)} | {cells} |")
    lines += ["", f"At 256 tokens, `{EQUAL[0]}` minus the other, paired by question, in points:", ""]
    lines += ["| other | " + " | ".join(parts) + " |", "|---|---|---|---|"]
    for name, row in found["differences"].items():
        cells = " | ".join("{:+.1f} [{:+.1f}, {:+.1f}]".format(*row[part]) for part in parts)
        lines.append(f"| {name} | {cells} |")
    kinds = list(next(iter(found["kinds"].values())))
    lines += ["", "By kind of question, percent right:", ""]
    lines += ["| setting | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    lines += [
        f"| {name} | " + " | ".join(f"{row[kind]:.0f}" for kind in kinds) + " |" for name, row in found["kinds"].items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--card", action="store_true", help="put the tables into the model card")
    options = parser.parse_args()
    start = time.perf_counter()
    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        root = write_shapesqa(Path(folder) / "shapesqa", options.videos, options.seed)
        benchmarks = [
            load_benchmark(form, root / f"shapesqa_{form}.csv", root / "videos") for form in ("open", "choice")
        ]
        results = measure(model, benchmarks, Path(folder) / "runs")
        questions = [question for benchmark in benchmarks for question in benchmark.questions]
    results = {"no video": text_only(model, questions), **results}
    found = tables(results, questions, {s.name: s.budget(*model.grid) for s in SETTINGS})
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start),
        "model": model.fingerprint,
        "videos": options.videos,
        "seed": options.seed,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": versions(),
    }
    text = markdown(found, facts)
    print(text, f"{facts['seconds']} s", sep="\n")
    RESULTS.mkdir(exist_ok=True)
    name = f"{facts['date']}-tiny-curves"
    (RESULTS / f"{name}.json").write_text(json.dumps(facts | found, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    if options.card:
        card = TINY / "MODEL_CARD.md"
        marked = re.compile(r"(?<=<!-- curves -->\n).*?(?=<!-- /curves -->)", re.DOTALL)
        card.write_text(marked.sub(lambda _: text, card.read_text()))


if __name__ == "__main__":
    main()
