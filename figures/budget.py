"""Accuracy against the number of visual tokens, with intervals and the Pareto front."""

import pandas as pd

from sfllava.analysis.results import accuracy, costs, pareto
from sfllava.plots import ACCURACY, Chart, Panel, Series, kind_of, series_of


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw one panel per benchmark, or per value of a column `panel` if the results have one."""
    by = "panel" if "panel" in results else "benchmark"
    table = accuracy(results, (by, "name")).merge(costs(results)[["name", "aggregation"]], on="name")
    table = table.dropna(subset=["tokens"])
    if table.empty:
        return "the number of visual tokens is not known"
    table["kind"] = table["aggregation"].map(kind_of)
    kinds = list(table["kind"].unique())
    panels = []
    for value, part in table.groupby(by, sort=False, observed=True):
        series = [
            series_of(part[part["kind"] == kind], "tokens", kind, i, "points") for i, kind in enumerate(kinds)
            if (part["kind"] == kind).any()
        ]  # fmt: skip
        front = part[pareto(part)].sort_values("tokens")
        series.append(Series("Pareto front", front["tokens"].tolist(), front["accuracy"].tolist(), mark="front"))
        title = str(value) if table[by].nunique() > 1 else ""
        level = results.attrs.get("chance")
        panels.append(Panel("visual tokens", ACCURACY, series, title, log_x=True, level=level))
    return Chart(panels)
