"""Accuracy against the number of visual tokens, with intervals and the Pareto front."""

import pandas as pd

from sfllava.analysis.results import accuracy, costs, pareto
from sfllava.plots import ACCURACY, Chart, Panel, Series, kind_of, kinds_with_runs, series_of


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw one panel per benchmark, or per value of a column `panel` if the results have one.

    Where all settings have equally many tokens, they are named on the x axis instead.
    """
    by = "panel" if "panel" in results else "benchmark"
    about = costs(results)[["name", "run", "aggregation", "selection"]]
    table = accuracy(results, (by, "name")).merge(about, on="name").dropna(subset=["tokens"])
    if table.empty:
        return "the number of visual tokens is not known"
    table["kind"] = table["aggregation"].map(kind_of)
    if table["selection"].nunique() > 1:
        alone = table["kind"].nunique() == 1  # then only the selection differs
        table["kind"] = table["selection"] if alone else table["kind"] + ", " + table["selection"]
    table["kind"] = kinds_with_runs(table, by)
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
        level, known = results.attrs.get("chance"), most_known(results)
        panels.append(Panel(label, ACCURACY, series, title, log_x=not equal, level=level, wide=equal, known=known))
    return Chart(panels, title="Accuracy at equally many tokens" if equal else "Accuracy by visual tokens")


def most_known(results: pd.DataFrame) -> int | None:
    """Return the most visual tokens that the model of these runs is known to answer with, where they have one."""
    runs = results.attrs.get("runs", {}).values()
    known = {(run.get("session") or {}).get("known_visual_tokens") for run in runs}
    return known.pop() if len(known) == 1 else None
