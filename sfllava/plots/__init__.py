"""Figures of results: each file in figures/ makes a chart, which seaborn draws for print and plotly for the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from sfllava import catalogue
from sfllava.analysis.differences import by_benchmark
from sfllava.plots import interactive, static
from sfllava.plots.chart import (
    ACCURACY,
    Chart,
    Heat,
    Panel,
    Series,
    hover,
    kind_of,
    kinds_with_runs,
    series_of,
)
from sfllava.types import SfllavaError

__all__ = [
    "ACCURACY", "Chart", "Heat", "Panel", "Series", "draw_chart", "hover", "interactive", "kind_of", "kinds_with_runs",
    "save_figures", "series_of", "show_figures", "static",
]  # fmt: skip


def draw_chart(name: str | Path, results: pd.DataFrame) -> Chart | str:
    """Make the chart of a figure file.

    Each benchmark gets its own panels, unless a column `panel` in the results groups the rows.

    Args:
        name: the name of a file in figures/, or a file of your own with a function `draw(results)`.
        results: from `load_results`.

    Returns:
        The chart, or the reason why there is none.

    Raises:
        SfllavaError: the file has no function `draw`.
    """
    draw = getattr(catalogue.load("figures", name), "draw", None)
    if draw is None:
        raise SfllavaError(f"{catalogue.find('figures', name)}: needed a function draw(results)")
    if not len(results):
        return "there is no answer yet"
    if "panel" in results or len(results["benchmark"].unique()) < 2:
        chart = draw(results)
        if isinstance(chart, str) or not chart.title:
            return chart
        return replace(chart, title=f"{chart.title}, {results['benchmark'].iloc[0]}")
    charts = {name: draw(part) for name, part in by_benchmark(results) if len(part)}
    drawn = {benchmark: chart for benchmark, chart in charts.items() if not isinstance(chart, str)}
    return _joined(drawn) if drawn else "; ".join(f"{benchmark}: {chart}" for benchmark, chart in charts.items())


def _joined(charts: dict[str, Chart]) -> Chart:
    """Join the panels of several benchmarks, with one colour per series name."""
    panels = [
        replace(panel, title=f"{benchmark}, {panel.title}" if panel.title else benchmark)
        for benchmark, chart in charts.items() for panel in chart.panels
    ]  # fmt: skip
    names = list(dict.fromkeys(series.name for panel in panels for series in panel.series))
    panels = [replace(p, series=[replace(s, colour=names.index(s.name)) for s in p.series]) for p in panels]
    notes, titles = (dict.fromkeys(filter(None, texts)) for texts in zip(*((c.note, c.title) for c in charts.values())))
    return Chart(panels, " ".join(notes), next(iter(titles), ""))


def show_figures(results: pd.DataFrame, names: Sequence[str | Path] = ()) -> None:
    """Show figures in a notebook; where there is none to show, print why.

    Args:
        results: from `load_results`.
        names: the figures to show, by name or as files of your own. Default: all.
    """
    for name in names or catalogue.names("figures"):
        chart = draw_chart(name, results)
        if isinstance(chart, str):
            print(f"{Path(name).stem}: none, since {chart}")
        else:
            interactive.render(chart).show()


def save_figures(
    results: pd.DataFrame, out: str | Path, names: Sequence[str | Path] = ()
) -> dict[str, list[Path] | str]:
    """Draw figures as SVG, PDF, PNG and HTML files.

    Args:
        results: from `load_results`.
        out: the folder; created if it does not exist.
        names: the figures to draw, by name or as files of your own. Default: all.

    Returns:
        Figure name -> its files, or the reason why there are none.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    made: dict[str, list[Path] | str] = {}
    for name in names or catalogue.names("figures"):
        chart = draw_chart(name, results)
        stem = Path(name).stem
        if isinstance(chart, str):
            made[stem] = chart
            continue
        figure = static.render(chart)
        files = [static.save(figure, out / f"{stem}.{kind}") for kind in ("svg", "pdf", "png")]
        made[stem] = [*files, interactive.save(interactive.render(chart), out / f"{stem}.html")]
    return made
