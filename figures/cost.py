"""Accuracy against the cost of a setting: tokens, operations, memory, and time if an ablation measured it."""

import pandas as pd

from sfllava.analysis.results import accuracy, costs
from sfllava.plots import ACCURACY, Chart, Panel, kind_of, kinds_with_runs, series_of

# column, label, and its units from largest to smallest
AXES = (
    ("tokens", "visual tokens", {"": 1}),
    ("prefill_flops", "prefill of a video", {"TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6}),
    ("kv_bytes", "keys and values in half precision", {"GiB": 2**30, "MiB": 2**20}),
    ("seconds", "encode and prefill of a video, cold", {"s": 1, "ms": 1e-3}),
    ("peak_bytes", "peak GPU memory", {"GiB": 2**30, "MiB": 2**20}),
)


def draw(results: pd.DataFrame) -> Chart | str:
    """Draw one panel for each cost that is known for all settings."""
    known = costs(results)
    table = accuracy(results).drop(columns="tokens").merge(known, on="name")
    table["kind"] = table["aggregation"].map(kind_of)
    table["kind"] = kinds_with_runs(table.assign(all=""), "all")
    kinds = list(table["kind"].unique())
    panels = []
    for column, label, units in AXES:
        if column not in table or table[column].isna().any():
            continue
        fits = [unit for unit, size in units.items() if table[column].min() >= size]
        unit = fits[0] if fits else list(units)[-1]
        part = table.assign(x=table[column] / units[unit])
        points = [series_of(part[part["kind"] == kind], "x", kind, i, "points") for i, kind in enumerate(kinds)]
        panels.append(Panel(f"{label}, {unit}" if unit else label, ACCURACY, points, log_x=True))
    return Chart(panels[:4], title="Accuracy by what a setting costs") if panels else "no costs are known"
