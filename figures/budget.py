"""Accuracy against the number of visual tokens, with intervals and the Pareto front."""

import pandas as pd

from sfllava.analysis.results import accuracy, costs, pareto
from sfllava.plots import ACCURACY, Chart, Panel, Series, kind_of, series_of


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw one panel per benchmark, or per value of a column `panel` if the results have one.

    Where all settings have equally many tokens, they are named on the x axis instead.
    """
    by = "panel" if "panel" in results else "benchmark"
    table = accuracy(results, (by, "name")).merge(costs(results)[["name", "aggregation", "selection"]], on="name")
    table = table.dropna(subset=["tokens"])
    if table.empty:
        return "the number of visual tokens is not known"
    table["kind"] = table["aggregation"].map(kind_of)
    if table["selection"].nunique() > 1:
        alone = table["kind"].nunique() == 1  # then only the selection differs
        table["kind"] = table["selection"] if alone else table["kind"] + ", " + table["selection"]
    kinds = list(table["kind"].unique())
    equal, panels = table["tokens"].nunique() == 1, []
    x, label = ("name", f"{table['tokens'].iloc[0]:,.0f} visual tokens each") if equal else ("tokens", "visual tokens")
    for value, part in table.groupby(by, sort=False, observed=True):
        series = [
            series_of(part[part["kind"] == kind], x, kind, i, "points") for i, kind in enumerate(kinds)
            if (part["kind"] == kind).any()
        ]  # fmt: skip
        front = part[pareto(part)].sort_values("tokens")
        if len(front) > 1 and not equal:
            series.append(Series("Pareto front", front["tokens"].tolist(), front["accuracy"].tolist(), mark="front"))
        title = str(value) if table[by].nunique() > 1 else ""
        level = results.attrs.get("chance")
        panels.append(Panel(label, ACCURACY, series, title, log_x=not equal, level=level, wide=equal))
    return Chart(panels)
