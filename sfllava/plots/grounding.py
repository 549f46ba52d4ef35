"""The figures of grounding: the measures of each predictor, and the frame scores of one answer on a time axis."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from sfllava.attribution.grounding.metrics import best_iou
from sfllava.attribution.grounding.results import GroundingResults
from sfllava.files import Row
from sfllava.plots import interactive, static
from sfllava.plots.chart import Chart, Panel, Series
from sfllava.plots.static import STYLE, TEXT, legend_below

PANELS = (("IoP and Acc@GQA", ("mIoP", "IoP@0.3", "IoP@0.5", "Acc@GQA")), ("IoU", ("mIoU", "IoU@0.3", "IoU@0.5")))
_SCORES = {"attention": "attention,\nrelative to even", "leave-out": "fall of log-likelihood\nwithout it, nats"}


def measures_chart(results: GroundingResults) -> Chart:
    """Make bars of all measures with their intervals, for each predictor and baseline.

    Args:
        results: a finished grounding run.

    Returns:
        The chart: one panel of IoP and Acc@GQA, one of IoU; Acc@QA, which is the same for all, is in the note.
    """
    table, panels = results.table, []
    for title, measures in PANELS:
        bars = []
        for i, (name, rows) in enumerate(table.groupby("predictor", sort=False)):
            part: Any = rows.set_index("measure").loc[list(measures)]
            texts = [f"{name}, {which}: {r['value']:.1f} % [{r['low']:.1f}, {r['high']:.1f}], n = {r['questions']:,}"
                     for which, r in part.iterrows()]  # fmt: skip
            value, low, high = (part[column].tolist() for column in ("value", "low", "high"))
            bars.append(Series(str(name), list(measures), value, low, high, texts, "bars", i))
        panels.append(Panel("", "%, of all questions (95 % interval)", bars, title))
    first: Any = table[table["measure"] == "Acc@QA"].iloc[0]
    note = f"{first['questions']:,} questions about {first['videos']:,} videos; "
    return Chart(panels, f"{note}Acc@QA {first['value']:.1f} % [{first['low']:.1f}, {first['high']:.1f}]")


def timeline(results: GroundingResults, key: str) -> Figure:
    """Draw the frame scores of one answer over time, with the predicted and the annotated spans.

    Args:
        results: a finished grounding run.
        key: of the question, as in its row.

    Returns:
        The figure, closed, so that a notebook shows it once.
    """
    i = next(i for i, row in enumerate(results.rows) if row["key"] == key)
    row, answer = results.rows[i], results.answers[i]
    names = [name for name in results.rules if row["frame_scores"].get(name)]
    edges = np.array(row["frame_edges"])
    colours = sns.color_palette("colorblind", 10)
    with sns.axes_style("whitegrid"), matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(names), 1, figsize=(TEXT, 0.9 + 1.25 * len(names)), sharex=True, squeeze=False, layout="constrained"
        )
        for axis, name in zip(axes[:, 0], names):
            rule, span = results.rules[name], answer.predicted[name]
            colour, smooth = colours[list(results.rules).index(name)], rule.smooth(row["frame_scores"][name])
            for start, end in answer.spans:
                axis.axvspan(start, end, color="0.6", alpha=0.45, linewidth=0, label="annotated span")
            axis.stairs(row["frame_scores"][name], edges, color="0.35", linewidth=0.7, baseline=None, label="score")
            label = f"{name}, smoothed and clipped"
            axis.stairs(smooth, edges, color=colour, linewidth=1.3, baseline=None, label=label)
            axis.axhline(rule.share * smooth.max(), color="0.4", linewidth=0.7, linestyle=":", label="threshold")
            if span is not None:
                low, high = axis.get_ylim()
                axis.set_ylim(low - 0.14 * (high - low), high)
                at = low - 0.07 * (high - low)
                axis.plot(span, [at, at], color="0.1", linewidth=4, solid_capstyle="butt", label="predicted span")
                title = f"{name}: {span[0]:.2f} to {span[1]:.2f} s, IoU {best_iou(span, answer.spans):.2f}"
                axis.set_title(title, loc="left")
            axis.set(ylabel=_SCORES.get(name, name), xlim=(0, edges[-1]))
        axes[-1, 0].set_xlabel("time, s")
        handles: dict[str, Any] = {}
        for axis in axes[:, 0]:
            handles |= dict(zip(*axis.get_legend_handles_labels()[::-1]))
        legend_below(figure, list(handles.values()), list(handles))
        figure.suptitle(_title(row), fontsize=7.5)
        plt.close(figure)
    return figure


def _title(row: Row) -> str:
    reply = f"reply: {row['prediction']!r} ({'right' if row['right'] else 'wrong'})"
    text = f"{row['video']}: {row['question']} {row['answer']!r}; {reply}"
    return "\n".join(textwrap.wrap(text, 120))


def example_key(results: GroundingResults) -> str | None:
    """Return the key of the question that is drawn as an example: the first right answer with a predicted span."""
    drawn = (
        row["key"]
        for row, answer in zip(results.rows, results.answers)
        if answer.right and any(span is not None for span in answer.predicted.values())
    )
    return next(drawn, None)


def save_grounding(results: GroundingResults, out: str | Path) -> list[Path]:
    """Save both figures as SVG, PDF and PNG files, and the measures also as HTML.

    Args:
        results: a finished grounding run.
        out: the folder.

    Returns:
        The files.
    """
    out, chart = Path(out), measures_chart(results)
    figures = {"grounding": static.render(chart)}
    if key := example_key(results):
        figures["grounding-example"] = timeline(results, key)
    files = [
        static.save(figure, out / f"{name}.{kind}")
        for name, figure in figures.items()
        for kind in ("svg", "pdf", "png")
    ]
    return [*files, interactive.save(interactive.render(chart), out / "grounding.html")]
