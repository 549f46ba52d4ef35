"""Names next to the points of a panel, where there is room for them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.textpath import TextPath

from sfllava.plots.chart import Panel, shifted_x

_SIZE = 6.0  # points
_LETTERS = 34  # a longer name hides more than it tells
_GAP = 5.0  # points between a marker and its name
Box = tuple[float, float, float, float]
"""Left, bottom, right and top in pixels"""


def label_points(axis: Any, panel: Panel) -> None:
    """Write the names of points next to them; a name that would cover something else is left out.

    Args:
        axis: an axes of matplotlib, whose layout is made.
        panel: what it shows.
    """
    points = [
        (x, float(y), label, low, high)
        for series in panel.series if series.labels and not panel.names
        for x, y, label, low, high in zip(
            shifted_x(panel, series), series.y, series.labels, series.low or series.y, series.high or series.y
        )
    ]  # fmt: skip
    if not points:
        return
    scale = axis.figure.dpi / 72
    places = axis.transData.transform([(x, y) for x, y, *_ in points])
    ends = axis.transData.transform([(x, end) for x, _, _, *both in points for end in both]).reshape(-1, 2, 2)
    frame, taken = axis.get_window_extent(), _obstacles(places, ends, scale) + _front(axis, panel, scale)
    for i in sorted(range(len(points)), key=lambda i: (-points[i][1], points[i][0])):  # the most accurate first
        label = points[i][2] if len(points[i][2]) <= _LETTERS else points[i][2][: _LETTERS - 1] + "…"
        width, height = (scale * side for side in _text_size(label))
        for (dx, dy), align in _offsets(scale):
            box = _box(places[i] + (dx, dy), width, height, align)
            inside = frame.x0 < box[0] and box[2] < frame.x1 and frame.y0 < box[1] and box[3] < frame.y1
            if inside and not any(_overlap(box, other) for k, other in taken if k != i):
                axis.annotate(
                    label, points[i][:2], (dx / scale, dy / scale), textcoords="offset points", fontsize=_SIZE,
                    ha=align, va="center", in_layout=False, zorder=3,
                )  # fmt: skip
                taken.append((-1, box))
                break


def _obstacles(places: np.ndarray, ends: np.ndarray, scale: float) -> list[tuple[int, Box]]:
    """Return the markers and intervals of the points, each with the number of its point."""
    found: list[tuple[int, Box]] = []
    for i, ((x, y), (low, high)) in enumerate(zip(places, ends)):
        found.append((i, (x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale)))
        found.append((i, (x - 2 * scale, low[1], x + 2 * scale, high[1])))
    return found


def _front(axis: Any, panel: Panel, scale: float) -> list[tuple[int, Box]]:
    """Return the steps of the Pareto front as obstacles, which belong to no point."""
    found: list[tuple[int, Box]] = []
    for series in panel.series:
        if series.mark == "front":
            corners = axis.transData.transform(list(zip(map(float, series.x), series.y)))
            for (x, y), (after, above) in itertools.pairwise(corners):
                found.append((-1, (x, y - scale, after, y + scale)))
                found.append((-1, (after - scale, min(y, above), after + scale, max(y, above))))
    return found


def _offsets(scale: float) -> list[tuple[tuple[float, float], str]]:
    """Return where a name may go, the best first: the distance from its point, and its alignment."""
    heights = (0.0, 1.6 * _GAP, -1.6 * _GAP)
    return [
        ((side * _GAP * scale, up * scale), align) for up in heights for side, align in ((1, "left"), (-1, "right"))
    ]


def _box(at: Any, width: float, height: float, align: str) -> Box:
    left, gap = (at[0] if align == "left" else at[0] - width), 0.3 * height
    return left - gap, at[1] - height / 2, left + width + gap, at[1] + height / 2


def _text_size(text: str) -> tuple[float, float]:
    extent = TextPath((0, 0), text, size=_SIZE).get_extents()
    return extent.width, 1.25 * _SIZE


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
