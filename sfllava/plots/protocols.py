"""The figure of `analysis.protocol_tables`: accuracy under each protocol, and how unparsable replies are treated."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sfllava.plots.static import MARKERS, STYLE, TEXT, legend_below

# greys and hatching, which are distinct without colours
_STYLES = {
    "unread_wrong": ("0.35", ""),
    "guessed": ("0.8", "////"),
    "left_out": ("1", ""),
    "unread_right": ("0.9", "..."),
}
_COUNTED = {
    "unread_wrong": "counted as wrong",
    "guessed": "guessed",
    "left_out": "left out",
    "unread_right": "as right",
}


def protocols_figure(accuracy: pd.DataFrame) -> Figure:
    """Draw the accuracy of each setting under each protocol, next to the fraction of unparsable replies.

    Args:
        accuracy: From `protocol_tables.protocol_accuracy`.

    Returns:
        The figure. It is closed, so that a notebook does not show it twice.
    """
    protocols, settings = list(accuracy["protocol"].unique()), list(accuracy["setting"].unique())
    colours = sns.color_palette("colorblind", 10)
    lane = 0.8 / len(settings)
    names = {fate: name for fate, name in _COUNTED.items() if accuracy[fate].to_numpy().any()}
    with sns.axes_style("whitegrid"), matplotlib.rc_context({**STYLE, "hatch.linewidth": 0.6}):
        height = 1.3 + len(protocols) * max(0.4, 0.17 * len(settings))
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(TEXT, height), layout="constrained", width_ratios=(3, 2), sharey=True
        )
        for i, setting in enumerate(settings):
            rows: Any = accuracy[accuracy["setting"] == setting]
            at = np.array([protocols.index(name) for name in rows["protocol"]]) + lane * (i + 0.5) - 0.4
            left.errorbar(
                rows["accuracy"], at, xerr=[rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]],
                fmt=MARKERS[i % len(MARKERS)], color=colours[i % 10], markersize=4, elinewidth=0.8, capsize=2,
                label=setting if len(settings) > 1 else None,
            )  # fmt: skip
            _draw_fates(right, rows, at, lane, names if i == 0 else {})
        left.set(xlabel="accuracy, % (95 % interval)", yticks=range(len(protocols)), yticklabels=protocols)
        left.set_ylim(len(protocols) - 0.5, -0.5)
        largest = 100 * (accuracy[list(_STYLES)].sum(axis=1) / accuracy["questions"]).max()
        right.set(xlabel="questions without a readable reply, %", xlim=(0, max(1.0, 1.05 * largest)))
        for axis in (left, right):
            axis.grid(axis="y", visible=False)
        if len(settings) > 1:
            legend_below(figure, *left.get_legend_handles_labels())
        if largest:
            figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=4)
    plt.close(figure)
    return figure


def _draw_fates(axis: Any, rows: pd.DataFrame, at: np.ndarray, lane: float, names: dict[str, str]) -> None:
    """Draw the fractions of questions without a parsable reply as stacked bars, divided by how they are treated."""
    start = np.zeros(len(rows))
    for fate, (grey, hatch) in _STYLES.items():
        share = 100 * rows[fate].to_numpy(float) / rows["questions"].to_numpy(float)
        axis.barh(
            at, share, 0.85 * lane, left=start, color=grey, hatch=hatch, edgecolor="0.2", linewidth=0.5,
            label=names.get(fate),
        )  # fmt: skip
        start += share
