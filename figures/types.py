"""Accuracy by question type."""

import pandas as pd

from sfllava.analysis.results import accuracy
from sfllava.plots import ACCURACY, Chart, Panel, Series, hover

MOST = 5  # more adjacent bars than this are hard to tell apart


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw bars per question type for the most accurate settings."""
    if results["type"].nunique() < 2:
        return "there are fewer than two question types"
    best = accuracy(results).sort_values("accuracy", ascending=False, kind="stable")["name"].tolist()
    shown = [name for name in results["name"].cat.categories if name in best[:MOST]]
    table = accuracy(results[results["name"].isin(shown)], ("type", "name"))
    types = table.groupby("type", observed=True)["questions"].sum().sort_values(ascending=False, kind="stable").index
    counts = table.groupby("type", observed=True)["questions"].max()
    bars = []
    for i, name in enumerate(shown):
        rows = table[table["name"] == name].set_index("type").reindex(types).dropna(subset=["accuracy"])
        bars.append(
            Series(
                name, [f"{kind} ({counts[kind]})" for kind in rows.index], rows["accuracy"].tolist(),
                rows["low"].tolist(), rows["high"].tolist(), [hover(r) for r in rows.reset_index().to_dict("records")],
                "bars", i,
            )
        )  # fmt: skip
    note = f"the {MOST} most accurate of {len(best)} settings" if len(best) > MOST else ""
    return Chart([Panel("type (questions)", ACCURACY, bars)], note)
