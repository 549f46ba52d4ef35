"""Accuracy by question type and by other groups of questions, and the number that the benchmark reports."""

import pandas as pd

from sfllava.analysis.breakdown import columns_of, headlines
from sfllava.analysis.results import accuracy
from sfllava.plots import ACCURACY, Chart, Panel, Series, hover

MOST = 5  # more adjacent bars than this are hard to tell apart
MOST_PANELS = 5
MOST_GROUPS = 24  # more than these have no room for their names
NARROW = 8  # half a page is wide enough for so many
ENDS = (("value", "low", "high"), ("accuracy", "accuracy_low", "accuracy_high"))


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw bars per question type, and per group, for the most accurate settings."""
    columns = columns_of(results)
    official = headlines(results)
    if not columns and official.empty:
        return "there are fewer than two question types"
    best = accuracy(results).sort_values("accuracy", ascending=False, kind="stable")["name"].tolist()
    shown = [name for name in results["name"].cat.categories if name in best[:MOST]]
    notes = [f"the {MOST} most accurate of {len(best)} settings"] if len(best) > MOST else []
    panels = [] if official.empty else [overall(official, shown)]
    for column in columns[:MOST_PANELS]:
        groups, panel = by_group(results[results["name"].isin(shown) & (results[column] != "")], column, shown)
        panels.append(panel)
        if groups > MOST_GROUPS:
            notes.append(f"the {MOST_GROUPS} largest of {groups} groups by {column.replace('_', ' ')}")
    if columns[MOST_PANELS:]:
        notes.append(f"not shown: {', '.join(columns[MOST_PANELS:])}")
    title = "Accuracy by question type and group" if len(columns) > 1 else f"Accuracy by {(columns or ['group'])[0]}"
    return Chart(sorted(panels, key=lambda panel: panel.wide), "; ".join(notes), title.replace("_", " "))


def overall(official: pd.DataFrame, shown: list[str]) -> Panel:
    """Draw the mean of group means next to the accuracy over all questions."""
    bars = []
    for i, name in enumerate(shown):
        for row in official[official["name"] == name].to_dict("records"):
            names = [f"{row['headline']} ({row['groups']})", f"all questions ({official['questions'].max():,})"]
            values, lows, highs = ([row[columns[part]] for columns in ENDS] for part in range(3))
            missing = f", {row['missing']}" if row["missing"] else ""
            hovers = [
                f"{name}: {what} {y:.1f} % [{low:.1f}, {high:.1f}]{missing}"
                for what, y, low, high in zip((row["headline"], "all questions"), values, lows, highs)
            ]
            bars.append(Series(name, names, values, lows, highs, hovers, "bars", i))
    return Panel("", ACCURACY, bars)


def by_group(results: pd.DataFrame, column: str, shown: list[str]) -> tuple[int, Panel]:
    """Draw the accuracy by a column's groups; also return how many groups there are."""
    table = accuracy(results, (column, "name"))
    by_column = table.groupby(column, observed=True)["questions"]
    groups, counts, bars = list(by_column.sum().sort_values(ascending=False, kind="stable").index), by_column.max(), []
    if all(group.isdecimal() for group in groups):
        groups.sort(key=int)
    elif column != "type" and len(groups) <= NARROW:
        groups = list(dict.fromkeys(table[column]))  # as the question file has them: short, medium, long
    for i, name in enumerate(shown):
        rows = table[table["name"] == name].set_index(column).reindex(groups[:MOST_GROUPS]).dropna(subset=["accuracy"])
        bars.append(
            Series(
                name, [f"{group} ({counts[group]})" for group in rows.index], rows["accuracy"].tolist(),
                rows["low"].tolist(), rows["high"].tolist(), [hover(r) for r in rows.reset_index().to_dict("records")],
                "bars", i,
            )
        )  # fmt: skip
    return len(groups), Panel(f"{column.replace('_', ' ')} (questions)", ACCURACY, bars, wide=len(groups) > NARROW)
