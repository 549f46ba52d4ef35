"""The figure of `analysis.protocol_tables`: accuracy under each protocol, and what becomes of unparsable replies."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from sfllava.plots.static import MARKERS, STYLE, TEXT, legend_below

_FATES = {"wrong": ("0.35", ""), "guessed": ("0.6", "////"), "left_out": ("1.0", ""), "right": ("0.85", "....")}
"""Column of the table -> grey and hatching, which need no colours to be told apart"""


def protocols_figure(accuracy: pd.DataFrame) -> Figure:
    """Draw the accuracy of each setting under each protocol, and next to it the share of unparsable replies.

    Args:
        accuracy: From `protocol_tables.protocol_accuracy`.

    Returns:
        The figure, closed, so that a notebook shows it once.
    """
    protocols, settings = list(accuracy["protocol"].unique()), list(accuracy["setting"].unique())
    colours = sns.color_palette("colorblind", 10)
    lane = 0.8 / len(settings)
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
            _draw_fates(right, rows, at, lane)
        left.set(xlabel="accuracy, % (95 % interval)", yticks=range(len(protocols)), yticklabels=protocols)
        left.set_ylim(len(protocols) - 0.5, -0.5)
        left.grid(axis="y", visible=False)
        right.set_xlabel("questions without a readable reply, %")
        right.set_xlim(0, max(1.0, right.get_xlim()[1]))
        right.grid(axis="y", visible=False)
        handles, names = left.get_legend_handles_labels() if len(settings) > 1 else ([], [])
        fates = dict(zip(*right.get_legend_handles_labels()[::-1]))
        legend_below(figure, [*handles, *fates.values()], [*names, *fates])
    plt.close(figure)
    return figure


def _draw_fates(axis: Any, rows: pd.DataFrame, at: np.ndarray, lane: float) -> None:
    """Draw the shares of questions without a readable reply as stacked bars, one part for what becomes of them."""
    start = np.zeros(len(rows))
    for fate, (grey, hatch) in _FATES.items():
        share = 100 * rows[fate].to_numpy(float) / rows["questions"].to_numpy(float)
        axis.barh(
            at, share, 0.85 * lane, left=start, color=grey, hatch=hatch, edgecolor="0.2", linewidth=0.5,
            label=f"counted {fate}" if fate in ("wrong", "right") else fate.replace("_", " "),
        )  # fmt: skip
        start += share
