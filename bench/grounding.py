"""When is the answer? Spans of the small model on ShapesQA, whose flashes have known times.

`python bench/grounding.py [--folder DIR]` renders a train and a test split, answers their moment questions, tunes the
rules on train, and reports test: docs/grounding.md, figures/grounding*.png and a file in bench/results. With a folder
that is kept, a stopped measurement goes on.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import textwrap
from datetime import date
from pathlib import Path

import numpy as np
from common import save

from sfllava import Setting, load_model
from sfllava.attribution.grounding.annotations import read_annotations
from sfllava.attribution.grounding.ground import prepare
from sfllava.attribution.grounding.metrics import best_iou
from sfllava.attribution.grounding.results import GroundingResults, load_tuned
from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.plots import static
from sfllava.plots.grounding import measures_chart, timeline

SETTING = Setting(32, "slowfast-slow_0frms_concat-fast_2x2")
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "grounding.md"


def pointing(results: GroundingResults, name: str) -> dict[str, float]:
    """How often the frame with the highest score is in an annotated span, and how high the frames in one rank."""
    hits, ranks = [], []
    for row in results.rows:
        if not row["frame_scores"].get(name):
            continue
        scores, edges = np.array(row["frame_scores"][name]), np.array(row["frame_edges"])
        middle = (edges[:-1] + edges[1:]) / 2
        inside = np.any([(start <= middle) & (middle < end) for start, end in row["spans"]], axis=0)
        if inside.any():
            hits.append(bool(inside[scores.argmax()]))
            ranks.append(float(np.mean(scores.argsort().argsort()[inside] / (len(scores) - 1))))
    return {"highest_frame_inside": float(np.mean(hits)), "mean_rank": float(np.mean(ranks)), "questions": len(hits)}


def best_possible(results: GroundingResults) -> float:
    """The mIoU of the best run of sampled frames for each question: no rule on these frames can be better."""
    best = []
    for row in results.rows:
        edges = row["frame_edges"]
        runs = [(edges[i], edges[j]) for i in range(len(edges) - 1) for j in range(i + 1, len(edges))]
        best.append(max((best_iou(run, row["spans"]) for run in runs), default=0.0))
    return float(np.mean(best))


def markdown(results: GroundingResults, points: dict[str, dict[str, float]]) -> str:
    """The measured part of docs/grounding.md."""
    table, gaps = results.table, results.differences
    names = list(dict.fromkeys(table["predictor"]))
    counts, tuned = results.counts, results.tuned
    assert tuned is not None
    rules = "; ".join(f"{name} window {rule.window}, share {rule.share:g}" for name, rule in results.rules.items())
    intro = (
        f"Measured {date.today().isoformat()} with the model in the package, {SETTING.name}. Rules tuned by "
        f"{tuned['by']} on {tuned['questions']} questions about {tuned['videos']} videos of the split train: {rules}. "
        f"Reported: all {counts['questions']} moment questions about {counts['videos']} videos of the split test, "
        f"{counts['failed']} failed. Percent [95 % interval, clustered by video]."
    )
    lines = [textwrap.fill(intro, 120), "", f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for which, rows in table.groupby("measure", sort=False):
        cells = [f"{r['value']:.1f} [{r['low']:.1f}, {r['high']:.1f}]" for r in rows.to_dict("records")]
        lines.append(f"| {which} | {' | '.join(cells)} |")
    lines += ["", f"The best runs of these sampled frames would have an mIoU of {100 * best_possible(results):.1f}."]
    lines += ["", "Minus a baseline, in points, paired by question; p after Holm's correction:", ""]
    lines += ["| | baseline | measure | difference | p |", "|---|---|---|---:|---:|"]
    for r in gaps.to_dict("records"):
        difference = f"{r['points']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]"
        p = f"{r['p_holm']:.4f}" if r["p_holm"] >= 0.0001 else "< 0.0001"
        lines.append(f"| {r['predictor']} | {r['baseline']} | {r['measure']} | {difference} | {p} |")
    lines += ["", "The frames alone, without a rule for spans:", ""]
    lines += ["| | the highest frame is in an annotated span | mean rank of the frames in one, 0 lowest to 1 highest |"]
    lines += ["|---|---:|---:|"]
    lines += [f"| {n} | {100 * p['highest_frame_inside']:.1f} % | {p['mean_rank']:.2f} |" for n, p in points.items()]
    return "\n".join(lines) + "\n"


def measure(folder: Path, videos: dict[str, int], seed: int) -> GroundingResults:
    """Render both splits, ground them, and return the results of test."""
    model = load_model("tiny")
    for split, count in videos.items():
        root = folder / split
        if not (root / "shapesqa_spans.json").exists():
            write_shapesqa(root, count, seed, split)
        benchmark = load_benchmark("choice", root / "shapesqa_choice.csv", root / "videos")
        annotations = read_annotations(root / "shapesqa_spans.json")
        prepare(model, benchmark, SETTING, annotations, folder / f"run-{split}", max_new_tokens=6).run()
    return load_tuned(folder / "run-test", folder / "run-train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep videos and runs here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        results = measure(folder, {"train": options.train, "test": options.test}, options.seed)
        points = {name: pointing(results, name) for name in results.rules}
        text = markdown(results, points)
        marked = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
        PAGE.write_text(marked.sub(lambda _: text, PAGE.read_text()))
        last = next(row["key"] for row in results.rows if row["question"].endswith("last?") and row["right"])
        static.save(static.render(measures_chart(results)), ROOT / "figures" / "grounding.png")
        static.save(timeline(results, last), ROOT / "figures" / "grounding-example.png")
    rules = {name: rule.to_dict() for name, rule in results.rules.items()}
    tables = {name: getattr(results, name).round(4).to_dict("records") for name in ("table", "differences")}
    facts = {"setting": SETTING.name, "seed": options.seed, "rules": rules}
    tuned = {name: value for name, value in (results.tuned or {}).items() if name != "folder"}
    save("grounding", facts | {"tuned": tuned, **results.counts, "frames": points, **tables})


if __name__ == "__main__":
    main()
