"""Question-aware frames on the long family of ShapesQA, with the tiny model and the small scorer.

`python bench/tiny_selection.py [--videos 40] [--frames 4 8 16] [--card]` renders the test split, ranks candidate frames
with the scorer, evaluates each selection through `sfllava.evaluate`, prints the tables, and saves them under
bench/results; --card also puts them in the cards of the model and of the scorer.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava import Setting, SlowFast, evaluate, load_model
from sfllava.analysis.differences import paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy
from sfllava.benchmarks import Benchmark, load_benchmark
from sfllava.benchmarks.shapesqa import write_long_shapesqa
from sfllava.files import write_file
from sfllava.models.host import versions
from sfllava.models.placement import TINY
from sfllava.models.scorer import Scorer, ScorerFolder, similarity
from sfllava.models.tiny import SCORER
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.reading import read_video
from sfllava.sampler.selection.selectors import ONE_PER_SECOND

RESULTS = Path(__file__).with_name("results")
SELECTIONS = ("uniform", "topk", "bolt", "aks", "qframe")
COMPARED = 8  # frames at which selections are compared with uniform frames
TYPES = ("search-digit", "search-place")
TEXTS = ("alone", "with options")


def rank(scorer: Scorer, benchmark: Benchmark, root: Path) -> pd.DataFrame:
    """One row per question and text: its type, and the rank from 1 of the best frame that shows the answer."""
    spans = json.loads((root / "shapesqa_spans.json").read_text())
    rows = []
    for video in sorted({question.video for question in benchmark.questions}):
        read = read_video(benchmark.find_video(video), ONE_PER_SECOND, size=scorer.folder.frame_size)
        images = scorer.image_features(read.frames)
        seconds = read.indices / spans[video]["fps"]
        for question in (q for q in benchmark.questions if q.video == video):
            ((start, end),) = spans[video]["location"][question.id]
            shown = (seconds >= start) & (seconds < end)
            for kind, text in zip(TEXTS, ([question.text], [question.text, *question.options]), strict=True):
                scores = similarity(images, scorer.text_features(" ".join(text)), "cosine")
                better = int((scores > scores[shown].max()).sum())
                rows.append({"text": kind, "type": question.type, "rank": better + 1, "candidates": len(scores)})
    return pd.DataFrame(rows)


def ranking_text(ranks: pd.DataFrame, videos: int, seed: int) -> str:
    """The table of ranks in Markdown."""
    lines = [
        f"Long family of ShapesQA, test split, seed {seed}: {videos} videos with {ranks['candidates'].min()} to "
        f"{ranks['candidates'].max()}",
        "candidates, one per second. For how many percent of questions the second that shows the answer is among the",
        "candidates with the highest cosines:",
        "",
        "| question | text | questions | first | first 4 | first 8 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for kind in TYPES:
        for text in TEXTS:
            found = ranks.loc[(ranks["type"] == kind) & (ranks["text"] == text), "rank"].to_numpy()
            shares = " | ".join(f"{100 * (found <= n).mean():.1f}" for n in (1, 4, 8))
            lines.append(f"| {kind} | {text} | {len(found)} | {shares} |")
    return "\n".join(lines) + "\n"


def accuracy_text(results: pd.DataFrame, frames: list[int], videos: int, seed: int) -> str:
    """The tables of accuracy in Markdown."""
    rows = accuracy(results, ["name"]).set_index("name")
    asked = len(results) // len(rows)
    lines = [
        f"Long family of ShapesQA, test split, seed {seed}: {videos} videos, {asked} questions, half of them open",
        "and half multiple choice; all patches of the frames; candidates at 1 fps, which the scorer compares with",
        "the question alone. Percent right [95 % interval, clustered by video].",
        "",
        "| frames | " + " | ".join(f"{n}" for n in frames) + " |",
        "|---|" + "---|" * len(frames),
    ]
    for selection in SELECTIONS:
        cells = [rows.loc[_name(selection, n), ["accuracy", "low", "high"]] for n in frames]
        lines.append(f"| {selection} | " + " | ".join("{:.1f} [{:.1f}, {:.1f}]".format(*c) for c in cells) + " |")
    others = [selection for selection in SELECTIONS if selection != "uniform"]
    lines += ["", f"At {COMPARED} frames, a selection minus uniform frames, paired by question, in points:", ""]
    lines += ["| selection | " + " | ".join((*TYPES, "both")) + " |", "|---|---|---|---|"]
    for selection in others:
        cells = []
        for kind in (*TYPES, None):
            named = results["name"].isin([_name(selection, COMPARED), _name("uniform", COMPARED)])
            pair = results.loc[named & ((results["type"] == kind) if kind else True)]
            gap = paired_differences(pair, _name("uniform", COMPARED)).iloc[0]
            cells.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*gap[["points", "low", "high"]]))
        lines.append(f"| {selection} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _name(selection: str, frames: int) -> str:
    return f"{selection}, {frames} frames"


def put_in_card(card: Path, section: str, text: str) -> None:
    """Replace a marked section of a card."""
    marked = re.compile(rf"(?<=<!-- {section} -->\n).*?(?=<!-- /{section} -->)", re.DOTALL)
    card.write_text(marked.sub(lambda _: text, card.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--scorer", default=str(SCORER))
    parser.add_argument("--card", action="store_true", help="put the tables into the cards")
    options = parser.parse_args()
    start = time.perf_counter()
    settings = [
        Setting(n, SlowFast(0, fast=(8, 8)), _name(selection, n), selection=selection)
        for n in options.frames
        for selection in SELECTIONS
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = write_long_shapesqa(Path(folder) / "shapesqa", options.videos, options.seed)
        forms = [load_benchmark(form, root / f"shapesqa_{form}.csv", root / "videos") for form in ("open", "choice")]
        ranks = rank(Scorer(ScorerFolder(options.scorer)), forms[1], root)
        ranking = ranking_text(ranks, options.videos, options.seed)
        print(ranking, f"{time.perf_counter() - start:.0f} s", sep="\n", flush=True)
        given: dict[str, Any] = {
            "selection": SelectionSource(options.scorer, cache=Path(folder) / "scores"),
            "max_new_tokens": 8,
            "progress": False,
        }
        model = load_model(options.model)
        runs = [evaluate(model, form, settings, Path(folder) / form.name, **given).path for form in forms]
        results = load_results(runs)
    text = accuracy_text(results, options.frames, options.videos, options.seed)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start),
        "model": model.info.fingerprint,
        "scorer": ScorerFolder(options.scorer).fingerprint,
        "videos": options.videos,
        "seed": options.seed,
        "versions": versions(),
        "recall_at_8": float(np.mean(ranks["rank"] <= 8)),
        "accuracy": accuracy(results, ["name", "type"]).to_dict("records"),
    }
    print(text, f"{facts['seconds']} s", sep="\n")
    name = f"{facts['date']}-tiny-selection"
    write_file(RESULTS / f"{name}.json", (json.dumps(facts, indent=1) + "\n").encode())
    write_file(RESULTS / f"{name}.md", f"{ranking}\n{text}".encode())
    if options.card:
        put_in_card(SCORER / "MODEL_CARD.md", "ranking", ranking)
        put_in_card(TINY / "MODEL_CARD.md", "selection", text)


if __name__ == "__main__":
    main()
