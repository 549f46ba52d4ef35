"""Accuracy by the number of Slow frames and the Fast grid, as a heat map: where more tokens help."""

import pandas as pd

from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.slowfast import named_pathways
from sfllava.analysis.results import accuracy, costs
from sfllava.plots import Chart, Heat, Panel, hover


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw the largest group of settings that differ only in these two."""
    table = accuracy(results).merge(costs(results)[["name", "frames", "aggregation"]], on="name").dropna()
    groups: dict[tuple, dict[tuple, dict]] = {}
    for row in table.to_dict("records"):
        name = row["aggregation"]
        made = named_pathways(parse_aggregation(name)) if name.startswith("slowfast-") else None
        if made and made.slow_frames and made.fast != (0, 0):
            groups.setdefault((row["frames"], str(made.slow), made.order), {})[made.slow_frames, made.fast] = row
    if not groups:
        return "no setting has both pathways"
    (frames, pool, order), cells = max(groups.items(), key=lambda item: len(item[1]))
    slow = sorted({key[0] for key in cells})
    fast = sorted({key[1] for key in cells}, key=lambda grid: (grid[0] * grid[1], grid))
    if len(slow) < 2 or len(fast) < 2:
        return "there are fewer than two numbers of Slow frames or Fast grids with all else equal"
    found = [[cells.get((s, f)) for f in fast] for s in slow]
    heat = Heat(
        [str(s) for s in slow],
        ["{}x{}".format(*f) for f in fast],
        [[row and row["accuracy"] for row in line] for line in found],
        [[hover(row) if row else "not run" for row in line] for line in found],
    )
    title = f"{frames} frames, slow {pool.replace('_', ' ')}" + (", fast first" if order == "fast-first" else "")
    panel = Panel("Fast grid, tokens per frame", "Slow frames", title=title, heat=heat)
    return Chart([panel], title="Accuracy by Slow frames and Fast grid")
