"""The content of a figure, independent of the library that draws it (seaborn or plotly)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

Mark = Literal["line", "points", "bars", "front"]


@dataclass(frozen=True)
class Series:
    """One named series of points.

    Attributes:
        name: the name in the legend.
        x: numbers or category names.
        y: the values.
        low: lower ends of the 95 % intervals; None if there are none.
        high: their upper ends.
        hover: the hover text of each point.
        mark: how the points are drawn.
        colour: index of the colour and marker, the same in all panels of a chart.
        labels: a short name to write next to each point, where there is room.
    """

    name: str
    x: Sequence[Any]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    hover: Sequence[str] = ()
    mark: Mark = "line"
    colour: int = 0
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Heat:
    """A table of values with a hover text for each; None where there is no value."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    hover: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Panel:
    """One pair of axes: lines, points or bars, or a heat map.

    A wide panel has a row of its own.
    """

    x_label: str
    y_label: str
    series: Sequence[Series] = ()
    title: str = ""
    log_x: bool = False
    heat: Heat | None = None
    level: float | None = None
    """Height of a dashed horizontal line labelled chance."""
    wide: bool = False
    known: float | None = None
    """The largest x that the model is known to answer with; what lies beyond is shaded."""

    @property
    def names(self) -> list[str]:
        """The names on the x axis; empty where it has numbers."""
        values = dict.fromkeys(x for series in self.series for x in series.x)
        return list(map(str, values)) if any(isinstance(x, str) for x in values) else []


@dataclass(frozen=True)
class Chart:
    """Panels with one legend, a title that says what is compared, and optionally a note."""

    panels: Sequence[Panel]
    note: str = ""
    title: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


ACCURACY = "accuracy, % (95 % interval)"
BEYOND = "beyond the model's known range"


def arrange(panels: Sequence[Panel]) -> tuple[int, int, list[tuple[int, int, int]]]:
    """Place the panels of a chart in a grid, in their order. A narrow panel that is alone in its row fills the row.

    Args:
        panels: the panels.

    Returns:
        The rows and columns of the grid, and the row, the column and the number of columns of each panel.
    """
    narrow = sum(not panel.wide for panel in panels)
    mixed = narrow < len(panels)
    columns = min(2, max(1, narrow)) if mixed or narrow > 3 else narrow
    places, row, column = [], 0, 0
    for panel, after in zip(panels, [*panels[1:], None]):
        if column == columns or (panel.wide and column):
            row, column = row + 1, 0
        alone = columns == 2 and not column and (after is None or after.wide)
        span = columns if panel.wide or alone else 1
        places.append((row, column, span))
        column += span
    return row + 1, columns, places


def series_of(table: pd.DataFrame, x: str, name: str, colour: int = 0, mark: Mark = "line") -> Series:
    """Make a series from a table of accuracies.

    Args:
        table: rows of `results.accuracy`.
        x: the column on the x axis.
        name: the name in the legend.
        colour: index of the colour and marker.
        mark: how the points are drawn.

    Returns:
        The series, sorted by x.
    """
    rows = table.sort_values(x, kind="stable")
    return Series(
        name, rows[x].tolist(), rows["accuracy"].tolist(), rows["low"].tolist(), rows["high"].tolist(),
        [hover(row) for row in rows.to_dict("records")], mark, colour, short_names(rows) if mark == "points" else (),
    )  # fmt: skip


def short_names(table: pd.DataFrame) -> list[str]:
    """Return the names of the settings of a table, without that of a run in front if the table has a column `run`."""
    names = table["name"].astype(str)
    runs = table["run"].astype(str) if "run" in table else [""] * len(table)
    return [name.removeprefix(f"{run}: ") for name, run in zip(names, runs)]


def kinds_with_runs(table: pd.DataFrame, by: str) -> list[str]:
    """Return the name of each row's series: its kind, and its run where there are several in one panel.

    Args:
        table: rows with the columns kind, run and `by`.
        by: the column whose values have panels of their own.
    """
    kinds, runs = table["kind"].astype(str).tolist(), table["run"].astype(str).tolist()
    in_panel: dict[object, set[str]] = {}
    for panel, run in zip(table[by].tolist(), runs):
        in_panel.setdefault(panel, set()).add(run)
    if max(map(len, in_panel.values()), default=1) < 2:
        return kinds
    return runs if len(set(kinds)) == 1 else [f"{run}: {kind}" for run, kind in zip(runs, kinds)]


def shifted_x(panel: Panel, series: Series) -> list[float]:
    """Return where a series of points is drawn on a logarithmic axis: a little aside, so that none hides another."""
    points = [s for s in panel.series if s.mark == "points"]
    values = [float(x) for x in series.x]
    if not panel.log_x or series.mark != "points" or len(points) < 2:
        return values
    reach = [float(x) for s in points for x in s.x]
    step = min(0.014, 0.06 / len(points)) * (points.index(series) - (len(points) - 1) / 2)
    return [x * (max(reach) / min(reach)) ** step for x in values]


def beyond_known(panel: Panel) -> tuple[float, float] | None:
    """Return the range on the x axis that lies beyond what the model knows; None if no point is there."""
    reach = [float(x) for series in panel.series for x in series.x] if panel.known and not panel.names else []
    if not reach or panel.known is None or max(reach) <= panel.known:
        return None
    return panel.known, max(reach) * max(max(reach) / min(reach), 1.5) ** 0.06


def wrap_names(names: Sequence[str]) -> list[list[str]]:
    """Break the names on an x axis into lines; where there are many, only what is very long has room for a second."""
    width = 24 if len(names) <= 8 else 40
    return [textwrap.wrap(name, width) or [""] for name in names]


def log_ticks(panel: Panel) -> tuple[list[float], list[str]]:
    """Return ticks of a logarithmic axis and their labels: as many of the panel's x values as have room for labels."""
    values = sorted({float(x) for series in panel.series for x in series.x})
    ticks = values[:1]
    for value in values[1:]:  # each label needs about a sixth of the axis
        if math.log(value / ticks[-1]) > 0.16 * max(math.log(values[-1] / values[0]), 1e-9):
            ticks.append(value)
    return ticks, [f"{tick:,.0f}" if tick >= 100 else f"{tick:.2g}" for tick in ticks]


def hover(row: dict[str, Any]) -> str:
    """Return the hover text of a row of accuracies: setting, accuracy with interval, and counts of answers."""
    text = f"{row['name']}: {row['accuracy']:.1f} % [{row['low']:.1f}, {row['high']:.1f}], n = {row['questions']:,}"
    counts = ", ".join(f"{name} {row[name]:,}" for name in ("failed", "empty", "unparsable"))
    return f"{text}, {counts}, {row['tokens']:,.0f} tokens"


def kind_of(aggregation: str | None) -> str:
    """Return the family of an aggregation from its name: slow + fast, slow only, fast only, or another method."""
    name = aggregation or ""
    if name.startswith("slowfast-"):
        slow, fast = "slow_0frms" not in name, "fast_0x0" not in name
        return "slow + fast" if slow and fast else "slow only" if slow else "fast only"
    return name.split("-")[0].replace("_", " ") or "other"
