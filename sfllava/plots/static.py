"""Charts as seaborn figures, one or two columns of a paper wide, and as files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from sfllava.files import atomic_write
from sfllava.plots.chart import (
    ACCURACY,
    BEYOND,
    Chart,
    Panel,
    Series,
    arrange,
    beyond_known,
    log_ticks,
    shifted_x,
    wrap_names,
)
from sfllava.plots.labels import label_points

COLUMN, TEXT = 3.3, 6.9  # width of one column of a two-column paper, and of both, in inches
GREY = "#737373"  # of what was not measured: the front, chance, what lies beyond
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
STYLE: Any = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "axes.linewidth": 0.6, "grid.linewidth": 0.4, "svg.hashsalt": "sfllava",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # names, questions and replies may have dollar signs
}  # fmt: skip
# greys of their own for text and lines, which a page replaces by those of its light or dark colours
INK: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), "#262627"),
    "grid.color": "#cdcdce", "axes.edgecolor": "#cdcdce",
}  # fmt: skip
# files store no dates and no tool names, so that equal input gives equal bytes
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def render(chart: Chart, width: float | None = None, row_height: float = 2.5) -> Figure:
    """Render a chart as a matplotlib figure, closed, so that a notebook shows it only where it is returned.

    Args:
        chart: the chart.
        width: in inches. Default: that of one column of a paper, or of both, as the chart needs.
        row_height: height of a row of panels in inches; rows with long names on the x axis are higher.
    """
    rows, columns, places = arrange(chart.panels)
    width = width or _print_width(chart)
    with sns.axes_style("whitegrid", rc=INK), matplotlib.rc_context(STYLE):
        heights = [row_height + 0.1 * (len(chart.panels) == 1)] * rows
        for panel, (row, _, _) in zip(chart.panels, places):
            heights[row] = max(heights[row], row_height - 0.5 + _names_height(panel))
        heading = _heading(chart, width)
        figure = plt.figure(figsize=(width, sum(heights) + 0.3 + 0.14 * len(heading)), layout="constrained")
        grid = figure.add_gridspec(rows, columns)
        axes = [figure.add_subplot(grid[row, column : column + span]) for row, column, span in places]
        limits = _limits(chart.panels)  # the same y range in all panels, so that heights can be compared
        for axis, panel, (_, column, _) in zip(axes, chart.panels, places):
            _heat(axis, panel) if panel.heat else _panel(axis, panel, limits)
            if column and panel.y_label == ACCURACY:  # as in the panel to the left
                axis.set_ylabel("")
        handles: dict[str, Any] = {}
        for axis in axes:
            handles |= dict(zip(*axis.get_legend_handles_labels()[::-1]))
        if len(handles) > 1:
            lines = ("Pareto front", "chance", BEYOND)  # listed last, after what was measured
            names = sorted(handles, key=lambda name: lines.index(name) if name in lines else -1)
            legend_below(figure, [handles[name] for name in names], names)
        if heading:
            figure.suptitle("\n".join(heading), fontsize=8)
        if any(series.labels for panel in chart.panels for series in panel.series):
            figure.draw_without_rendering()  # the layout is made: labels go where they have room in it
            for axis, panel in zip(axes, chart.panels):
                label_points(axis, panel)
        plt.close(figure)
    return figure


def _print_width(chart: Chart) -> float:
    names = {series.name for panel in chart.panels for series in panel.series}
    alone = len(chart.panels) == 1 and not chart.panels[0].wide
    return COLUMN if alone and len(names) <= 8 else TEXT


def _heading(chart: Chart, width: float) -> list[str]:
    """Return the lines of a chart's title and note."""
    letters = int(18 * width)
    return [line for text in (chart.title, chart.note) for line in textwrap.wrap(text, letters)]


def legend_below(figure: Figure, handles: list[Any], names: list[str]) -> None:
    """Add a legend below all panels, with as many columns as have room."""
    inches = 0.5 + 0.056 * max(map(len, names))  # width of a column: handle, gap and the longest name
    columns = max(1, int(figure.get_size_inches()[0] / inches))
    figure.legend(handles, names, loc="outside lower center", frameon=False, ncols=min(columns, len(names)))


def _panel(axis: Any, panel: Panel, limits: tuple[float, float]) -> None:
    colours = sns.color_palette("colorblind", 10)
    bars = [s for s in panel.series if s.mark == "bars"]
    names = panel.names
    place = {name: i for i, name in enumerate(names)}
    for series in panel.series:
        x = np.array([place[v] for v in series.x] if names else shifted_x(panel, series), float)
        y = np.array(series.y, float)
        colour, marker = colours[series.colour % 10], MARKERS[series.colour % len(MARKERS)]
        if series.mark == "front":
            axis.step(x, y, where="post", color=GREY, linewidth=1, linestyle="--", label=series.name, zorder=1)
        elif series.mark == "bars":
            width = 0.8 / len(bars)
            x = x + (bars.index(series) - (len(bars) - 1) / 2) * width
            axis.bar(x, y, width, color=colour, yerr=_errors(series), label=series.name, error_kw={"linewidth": 0.7})
        else:
            axis.errorbar(
                x, y, yerr=_errors(series), label=series.name, color=colour, marker=marker, markersize=4,
                linewidth=1.1 if series.mark == "line" else 0, elinewidth=0.8, capsize=2, zorder=2,
            )  # fmt: skip
    if panel.level is not None:
        axis.axhline(panel.level, color=GREY, linestyle=":", linewidth=1, label="chance")
    if (span := beyond_known(panel)) is not None:
        axis.axvspan(*span, facecolor=GREY, alpha=0.14, linewidth=0, label=BEYOND, zorder=0)
    axis.set(xlabel=panel.x_label, ylabel=panel.y_label, title=panel.title, ylim=limits)
    if names:
        labels = ["\n".join(lines) for lines in wrap_names(names)]
        axis.set_xticks(range(len(names)), labels, rotation=35, ha="right", rotation_mode="anchor")
        axis.grid(axis="x", visible=False)
    elif panel.log_x:
        _log_axis(axis, panel)


def _names_height(panel: Panel) -> float:
    """Return the height in inches of the rotated names on a panel's x axis."""
    sizes = [(0.053 * max(map(len, lines)), 0.11 * len(lines)) for lines in wrap_names(panel.names)]
    return max((0.57 * long + 0.82 * high for long, high in sizes), default=0.0)  # sine and cosine of 35 degrees


def _log_axis(axis: Any, panel: Panel) -> None:
    axis.set_xscale("log")
    ticks, labels = log_ticks(panel)
    axis.set_xticks(ticks, labels)
    axis.minorticks_off()
    reach = [float(x) for series in panel.series for x in series.x]
    room = max(max(reach) / min(reach), 1.5) ** 0.06
    axis.set_xlim(min(reach) / room, max(reach) * room)


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """Return the y range of accuracies: all intervals, at least 20 points, and from zero if there are bars."""
    series = [s for panel in panels for s in panel.series]
    values = [v for s in series for part in (s.low or s.y, s.high or s.y) for v in part]
    values += [panel.level for panel in panels if panel.level is not None]
    low, high = (min(values), max(values)) if values else (0.0, 100.0)
    if any(s.mark == "bars" for s in series):
        low = 0.0
    room = max(20 - (high - low), 0.1 * (high - low)) / 2
    floor = 0.0 if any(s.mark == "bars" for s in series) else -2.0
    return max(floor, low - room), min(104.0, high + room)


def _heat(axis: Any, panel: Panel) -> None:
    heat = panel.heat
    assert heat is not None
    values = np.array([[np.nan if v is None else v for v in row] for row in heat.values], float)
    sns.heatmap(
        values, ax=axis, annot=True, fmt=".1f", cmap="cividis", linewidths=0.5, xticklabels=list(heat.columns),
        yticklabels=list(heat.rows), cbar_kws={"label": "accuracy, %"}, annot_kws={"fontsize": 7},
    )  # fmt: skip
    axis.set(xlabel=panel.x_label, ylabel=panel.y_label, title=panel.title)
    axis.tick_params(axis="y", rotation=0)


def _errors(series: Series) -> Any:
    if series.low is None or series.high is None:
        return None
    y = np.array(series.y, float)
    return np.maximum(0, [y - np.array(series.low, float), np.array(series.high, float) - y])


def save(figure: Figure, path: Path) -> Path:
    """Write an SVG, PDF or PNG file and return its path; equal figures give equal bytes."""
    kind = path.suffix[1:]
    with matplotlib.rc_context(STYLE), atomic_write(path) as part:
        figure.savefig(part, metadata=_METADATA[kind], dpi=300)
    return path
