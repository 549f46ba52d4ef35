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
import pandas as pd
import torch

from sfllava import Setting, evaluate, load_model
from sfllava.analysis import stats
from sfllava.analysis.differences import paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy
from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.evaluators import find_evaluator
from sfllava.models.host import versions
from sfllava.models.placement import TINY
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


def text_only(model: Any, questions: list[Question]) -> dict[str, bool]:
    """Question key -> right, of a model that gets no visual tokens at all."""
    width = model.language_model.network.config.text_config.hidden_size
    found = {}
    for answer in model.answer(torch.zeros(0, width), questions, max_new_tokens=8):
        evaluator = find_evaluator(answer.question.task)
        assert evaluator is not None
        rule = "choice-strict" if answer.question.task == "choice" else "match-exact"
        found[answer.question.key] = evaluator.grade(answer.question, answer.text)[rule].correct
    return found


def markdown(results: pd.DataFrame, blind: dict[str, bool], facts: dict[str, Any]) -> str:
    """The tables in Markdown."""
    families = results["type"].astype(str).str.split("-").str[0]
    parts = {**{name: results[families == name] for name in FAMILIES}, "both": results}
    one = {part: rows[rows["name"] == EQUAL[0]] for part, rows in parts.items()}
    head = " | ".join(f"{part} (n = {len(rows)})" for part, rows in one.items())
    lines = [
        f"ShapesQA, test split, seed {facts['seed']}: {facts['videos']} videos, {len(one['both'])} questions, half of",
        "them open and half multiple choice. Percent right [95 % interval, clustered by video].",
        "",
        f"| setting | tokens | {head} |",
        "|---|---:|---|---|---|",
        f"| no video | 0 | {' | '.join(_blind(rows, blind) for rows in one.values())} |",
    ]
    tables = {part: accuracy(rows, ["name"]).set_index("name") for part, rows in parts.items()}
    for name, tokens in tables["both"]["tokens"].items():
        cells = (tables[part].loc[name, ["accuracy", "low", "high"]] for part in parts)
        lines.append(f"| {name} | {tokens:.0f} | {' | '.join('{:.1f} [{:.1f}, {:.1f}]'.format(*c) for c in cells)} |")
    lines += ["", f"At 256 tokens, `{EQUAL[0]}` minus the other, paired by question, in points:", ""]
    lines += [f"| other | {' | '.join(parts)} |", "|---|---|---|---|"]
    for other in EQUAL[1]:
        cells = []
        for rows in parts.values():
            pair = rows[rows["name"].isin([EQUAL[0], other])]
            gap = paired_differences(pair, other).iloc[0]
            cells.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*gap[["points", "low", "high"]]))
        lines.append(f"| {other} | {' | '.join(cells)} |")
    kinds = accuracy(results, ("name", "type", "benchmark")).pivot_table(
        "accuracy", "name", ["type", "benchmark"], sort=False, observed=True
    )
    kinds = kinds.sort_index(axis=1)
    lines += ["", "By kind of question and form, percent right:", ""]
    lines += ["| setting | " + " | ".join(f"{kind}, {form}" for kind, form in kinds) + " |"]
    lines += ["|---|" + "---:|" * kinds.shape[1]]
    lines += [f"| {name} | " + " | ".join(f"{value:.0f}" for value in row) + " |" for name, row in kinds.iterrows()]
    return "\n".join(lines) + "\n"


def _blind(rows: pd.DataFrame, blind: dict[str, bool]) -> str:
    right = np.array([blind[key] for key in rows["key"].astype(str)])
    found = stats.proportion(right, rows["video"].astype(str).to_numpy())
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


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
        forms = [load_benchmark(form, root / f"shapesqa_{form}.csv", root / "videos") for form in ("open", "choice")]
        settings = {"max_new_tokens": 8, "progress": False}
        runs = [evaluate(model, form, SETTINGS, Path(folder) / form.name, **settings).path for form in forms]
        results = load_results(runs)
        questions = [question for form in forms for question in form.questions]
    blind = text_only(model, questions)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start),
        "model": model.info.fingerprint,
        "videos": options.videos,
        "seed": options.seed,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": versions(),
    }
    text = markdown(results, blind, facts)
    print(text, f"{facts['seconds']} s", sep="\n")
    RESULTS.mkdir(exist_ok=True)
    name = f"{facts['date']}-tiny-curves"
    (RESULTS / f"{name}.json").write_text(
        json.dumps(facts | {"accuracy": accuracy(results, ["name"]).to_dict("records")}, indent=1) + "\n"
    )
    (RESULTS / f"{name}.md").write_text(text)
    if options.card:
        card = TINY / "MODEL_CARD.md"
        marked = re.compile(r"(?<=<!-- curves -->\n).*?(?=<!-- /curves -->)", re.DOTALL)
        card.write_text(marked.sub(lambda _: text, card.read_text()))


if __name__ == "__main__":
    main()
