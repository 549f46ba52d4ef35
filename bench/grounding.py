"""Grounding with the small model on ShapesQA, where the times of the flashes are known.

`python bench/grounding.py [--folder DIR]` renders a train and a test split, answers their moment questions, tunes the
rules on the train split and reports the test split in docs/concepts/grounding.md, figures/grounding*.png and
bench/results. With --folder, an interrupted measurement can be resumed.
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
from sfllava.plots.grounding import metrics_chart, timeline

SETTING = Setting(32, "slowfast-slow_0frms_concat-fast_2x2")
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "concepts" / "grounding.md"


def frame_ranks(results: GroundingResults, name: str) -> dict[str, float]:
    """How often the highest-scored frame is in an annotated span, and the mean rank of the frames in such a span."""
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
    """The mIoU of the best consecutive frames for each question: an upper bound for any rule on these frames."""
    best = []
    for row in results.rows:
        edges = row["frame_edges"]
        runs = [(edges[i], edges[j]) for i in range(len(edges) - 1) for j in range(i + 1, len(edges))]
        best.append(max((best_iou(run, row["spans"]) for run in runs), default=0.0))
    return float(np.mean(best))


def markdown(results: GroundingResults, points: dict[str, dict[str, float]]) -> str:
    """The measured part of docs/concepts/grounding.md."""
    table, gaps = results.table, results.differences
    names = list(dict.fromkeys(table["predictor"]))
    counts, tuned = results.counts, results.tuned
    assert tuned is not None
    rules = "; ".join(f"{name} window {rule.window}, share {rule.share:g}" for name, rule in results.rules.items())
    intro = (
        f"Measured {date.today().isoformat()} with the model in the package, {SETTING.name}. Rules tuned by "
        f"{tuned['by']} on {tuned['questions']} questions about {tuned['videos']} videos of the train split: {rules}. "
        f"Reported: all {counts['questions']} moment questions about {counts['videos']} videos of the test split, "
        f"{counts['failed']} failed. Percent [95 % interval, clustered by video]."
    )
    lines = [textwrap.fill(intro, 120), "", f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for which, rows in table.groupby("metric", sort=False):
        cells = [f"{r['value']:.1f} [{r['low']:.1f}, {r['high']:.1f}]" for r in rows.to_dict("records")]
        lines.append(f"| {which} | {' | '.join(cells)} |")
    lines += [
        "",
        f"With the best choice of consecutive sampled frames, mIoU would be {100 * best_possible(results):.1f}.",
    ]
    lines += ["", "Differences from the baselines in points, paired by question; p with Holm's correction:", ""]
    lines += ["| | baseline | metric | difference | p |", "|---|---|---|---:|---:|"]
    for r in gaps.to_dict("records"):
        difference = f"{r['points']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]"
        p = f"{r['p_holm']:.4f}" if r["p_holm"] >= 0.0001 else "< 0.0001"
        lines.append(f"| {r['predictor']} | {r['baseline']} | {r['metric']} | {difference} | {p} |")
    lines += ["", "The frame scores alone, without a span rule:", ""]
    lines += [
        "| | highest-scored frame is in an annotated span | mean rank of frames in a span (0 lowest, 1 highest) |"
    ]
    lines += ["|---|---:|---:|"]
    lines += [f"| {n} | {100 * p['highest_frame_inside']:.1f} % | {p['mean_rank']:.2f} |" for n, p in points.items()]
    return "\n".join(lines) + "\n"


def measure(folder: Path, videos: dict[str, int], seed: int) -> GroundingResults:
    """Render both splits, ground them, and return the results of the test split."""
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
        points = {name: frame_ranks(results, name) for name in results.rules}
        text = markdown(results, points)
        marked = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
        PAGE.write_text(marked.sub(lambda _: text, PAGE.read_text()))
        last = next(row["key"] for row in results.rows if row["question"].endswith("last?") and row["right"])
        static.save(static.render(metrics_chart(results)), ROOT / "figures" / "grounding.png")
        static.save(timeline(results, last), ROOT / "figures" / "grounding-example.png")
    rules = {name: rule.to_dict() for name, rule in results.rules.items()}
    tables = {name: getattr(results, name).round(4).to_dict("records") for name in ("table", "differences")}
    facts = {"setting": SETTING.name, "seed": options.seed, "rules": rules}
    tuned = {name: value for name, value in (results.tuned or {}).items() if name != "folder"}
    save("grounding", facts | {"tuned": tuned, **results.counts, "frames": points, **tables})


if __name__ == "__main__":
    main()
