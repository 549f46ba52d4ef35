"""Measured accuracy next to the paper's for the same settings."""

import pandas as pd

from sfllava import catalogue
from sfllava.analysis.results import accuracy
from sfllava.plots import ACCURACY, Chart, Panel, Series, series_of

RETIRED = "The judge of the paper's accuracy on this benchmark, gpt-3.5-turbo-0125, is retired: not comparable."
PLAIN = "The paper's numbers (arXiv 2407.15841) come without intervals."


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw the settings of an ablation, in its order, with the paper's 7B and 34B results."""
    runs = results.attrs["runs"].values()
    name = next((about["ablation"] for about in runs if about.get("ablation")), None)
    if name is None:
        return "not the runs of an ablation"
    if name not in catalogue.names("ablations"):  # a file of the user's own
        return f"the paper has no numbers of {name}"
    from sfllava.ablation import load_ablation  # with it come the models, which most results do not need

    benchmark = str(results["benchmark"].iloc[0])
    paper = {label: found[benchmark] for label, found in load_ablation(name).paper.items() if benchmark in found}
    if not paper:
        return f"the paper has no numbers of {name} on {benchmark}"
    table = accuracy(results[results["setting"].isin(paper)])
    if table.empty:
        return "none of the settings is in the paper"
    series = [series_of(table, "name", "measured", 0, "points")]
    for i, size in enumerate(("7B", "34B"), 1):
        known = {label: row[size] for label, row in paper.items() if row[size] is not None}
        hovers = [f"paper, {size}, {label}: {value} %" for label, value in known.items()]
        series.append(Series(f"paper, {size}", list(known), list(known.values()), None, None, hovers, "points", i))
    judged = "activitynet" in benchmark
    title = f"Measured accuracy and the paper's, {name.replace('_', ' ')}"
    return Chart([Panel("", ACCURACY, series)], RETIRED if judged else PLAIN, title)
