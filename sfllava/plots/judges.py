"""The figure of a run's judges: the scores that each gives, and how well each pair of them agrees."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sfllava.plots.static import MARKERS, STYLE, TEXT, legend_below


def judges_agreement(scores: pd.DataFrame, kappas: pd.DataFrame) -> Figure:
    """Draw the scores that each judge gives to a run, and next to them each pair's agreement (Cohen's kappa).

    Args:
        scores: from `judge_scores`.
        kappas: a square table with the judges' names; NaN where there is no kappa.

    Returns:
        The figure, closed, so that a notebook shows it once.
    """
    judges = list(scores["judge"].unique())
    value = "accuracy" if any(scores["accuracy"].notna()) else "score"
    label = {"accuracy": "accuracy, % (95 % interval)", "score": "score (95 % interval)"}[value]
    groups = list(dict.fromkeys(zip(scores["setting"], scores["rubric"])))
    settings, rubrics = len(set(scores["setting"])), len(set(scores["rubric"]))
    colours = sns.color_palette("colorblind", len(groups))
    numbered = [f"{judge}  ({i})" for i, judge in enumerate(judges, 1)]
    with sns.axes_style("whitegrid"), matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 2, figsize=(TEXT, 1.2 + len(judges) * max(0.4, 0.16 * len(groups))), layout="constrained",
            width_ratios=(2, 1),
        )  # fmt: skip
        for i, (setting, rubric) in enumerate(groups):
            rows: Any = scores[(scores["setting"] == setting) & (scores["rubric"] == rubric) & scores[value].notna()]
            at = [judges.index(judge) + 0.7 * ((i + 0.5) / len(groups) - 0.5) for judge in rows["judge"]]
            axes[0].errorbar(
                rows[value], at, xerr=[rows[value] - rows[f"{value}_low"], rows[f"{value}_high"] - rows[value]],
                fmt=MARKERS[i % len(MARKERS)], color=colours[i], markersize=4, elinewidth=0.8, capsize=2,
                label=rubric if settings == 1 else setting if rubrics == 1 else f"{setting} {rubric}",
            )  # fmt: skip
        axes[0].set(xlabel=label, yticks=range(len(judges)), yticklabels=numbered, ylim=(len(judges) - 0.5, -0.5))
        if len(groups) > 1:
            legend_below(figure, *axes[0].get_legend_handles_labels())
        axes[1].grid(False)
        if len(kappas) and np.isfinite(kappas.to_numpy(float)).any():
            names: Any = [judges.index(judge) + 1 for judge in kappas]
            sns.heatmap(
                kappas, ax=axes[1], annot=True, fmt=".2f", vmin=-1, vmax=1, cmap="vlag", square=True, cbar=False,
                xticklabels=names, yticklabels=names,
            )  # fmt: skip
            axes[1].tick_params(axis="y", rotation=0)
            axes[1].set(title="Cohen's kappa", xlabel="", ylabel="")
        else:
            axes[1].set_axis_off()
    plt.close(figure)
    return figure
