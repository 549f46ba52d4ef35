"""Accuracy against the number of frames, for the Fast pathway and for the Slow pathway."""

import pandas as pd

from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.slowfast import SlowFast, named_pathways
from sfllava.analysis.results import accuracy, costs
from sfllava.plots import ACCURACY, Chart, Panel, series_of


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw lines along which only one number of frames changes."""
    table = accuracy(results).merge(costs(results)[["name", "frames", "aggregation"]], on="name").dropna()
    rows = [(row, parse(row["aggregation"])) for row in table.to_dict("records")]
    rows = [
        row | {"slow": made.slow_frames, "pool": made.slow, "grid": made.fast, "order": made.order}
        for row, made in rows
        if made is not None
    ]
    fast, slow = ([row for row in rows if row[name] not in (0, (0, 0))] for name in ("grid", "slow"))
    panels = [
        _panel(pd.DataFrame(fast), "Fast frames", "frames", ["slow", "pool", "grid", "order"]),
        _panel(pd.DataFrame(slow), "Slow frames", "slow", ["frames", "pool", "grid", "order"]),
    ]
    found = [panel for panel in panels if panel]
    if not found:
        return "no two settings differ only in the number of frames"
    return Chart(found, title="Accuracy by number of frames, all else equal")


def parse(name: str) -> SlowFast | None:
    return named_pathways(parse_aggregation(name)) if name.startswith("slowfast-") else None


def _panel(table: pd.DataFrame, label: str, x: str, fixed: list[str]) -> Panel | None:
    if table.empty:
        return None
    if x == "slow":
        # without a Fast pathway, the number of sampled frames does not matter: the Slow frames are taken from them
        table.loc[table["grid"] == (0, 0), ["frames", "order"]] = [0, ""]
    else:
        table.loc[table["slow"] == 0, ["pool", "order"]] = ""
    series = []
    for values, part in table.groupby(fixed, sort=False):
        if part[x].nunique() > 1:
            series.append(series_of(part, x, _name(dict(zip(fixed, values))), len(series)))
    return Panel(label, ACCURACY, series, log_x=True) if series else None


def _name(about: dict) -> str:
    grid = "{}x{}".format(*about["grid"]) + (", fast first" if about["order"] == "fast-first" else "")
    if "frames" in about:
        return f"+ fast {about['frames']}, {grid}" if about["frames"] else "slow only"
    return f"+ slow {about['slow']}, fast {grid}" if about["slow"] else f"fast only, {grid}"
