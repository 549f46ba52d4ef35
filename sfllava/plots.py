"""Tables -> figures."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

_MARKERS = ("o", "s", "D", "^", "v", "P")


def budget_accuracy(table: pd.DataFrame, kind: str, panel: str | None = None, chance: float | None = None) -> Figure:
    """Visual tokens against accuracy with its 95 % interval, as `results.accuracy` gives them.

    A colour and a marker for each value of the column `kind`, a panel for each value of the column `panel`; `chance`
    """
    panels = list(table[panel].unique()) if panel else [None]
    kinds = list(table[kind].unique())
    colours = dict(zip(kinds, sns.color_palette("colorblind", len(kinds))))
    markers = dict(zip(kinds, _MARKERS))
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(
            1, len(panels), figsize=(4.6 * len(panels), 4.4), sharey=True, squeeze=False, layout="constrained"
        )
    for axis, name in zip(axes[0], panels):
        part: Any = table[table[panel] == name] if panel else table
        for value in kinds:
            rows = part[part[kind] == value].sort_values("tokens")
            errors = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
            axis.errorbar(
                rows["tokens"], rows["accuracy"], yerr=errors, label=value, color=colours[value],
                marker=markers[value], markersize=7, linewidth=1.5, capsize=3,
            )  # fmt: skip
        if chance is not None:
            axis.axhline(chance, color="0.4", linestyle="--", linewidth=1, label="chance")
        axis.set(xscale="log", xlabel="visual tokens", ylim=(0, 102), title=name or "")
        ticks = sorted(part["tokens"].unique())
        axis.set_xticks(ticks)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.minorticks_off()
    axes[0][0].set_ylabel("accuracy, % (95 % interval)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    plt.close(figure)  # shown once, by whoever asked for it
    return figure


def judges_agreement(scores: pd.DataFrame, kappas: pd.DataFrame) -> Figure:
    """What each judge says of a run, as `agreement.scores` gives it, and beside it how far each two agree (kappa).

    kappas: a square table with the judges' names, NaN where there is none.
    """
    judges = list(scores["judge"].unique())
    value = "accuracy" if any(scores["accuracy"].notna()) else "score"
    label = {"accuracy": "accuracy, % (95 % interval)", "score": "score, 0 to 5 (95 % interval)"}[value]
    groups = list(dict.fromkeys(zip(scores["setting"], scores["rubric"])))
    settings, rubrics = len(set(scores["setting"])), len(set(scores["rubric"]))
    colours = sns.color_palette("colorblind", len(groups))
    numbered = [f"{judge}  ({i})" for i, judge in enumerate(judges, 1)]
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(
            1, 2, figsize=(9.6, 1.6 + len(judges) * max(0.55, 0.2 * len(groups))), layout="constrained",
            width_ratios=(2, 1),
        )  # fmt: skip
    for i, (setting, rubric) in enumerate(groups):
        rows: Any = scores[(scores["setting"] == setting) & (scores["rubric"] == rubric) & scores[value].notna()]
        at = [judges.index(judge) + 0.7 * ((i + 0.5) / len(groups) - 0.5) for judge in rows["judge"]]
        axes[0].errorbar(
            rows[value], at, xerr=[rows[value] - rows[f"{value}_low"], rows[f"{value}_high"] - rows[value]],
            fmt=_MARKERS[i % len(_MARKERS)], color=colours[i], capsize=3,
            label=rubric if settings == 1 else setting if rubrics == 1 else f"{setting} {rubric}",
        )  # fmt: skip
    axes[0].set(xlabel=label, yticks=range(len(judges)), yticklabels=numbered, ylim=(len(judges) - 0.5, -0.5))
    if len(groups) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
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
