"""Tables -> figures."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
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
