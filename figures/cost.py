"""Accuracy against what a setting costs: tokens, operations, memory, and seconds where a sweep has measured them."""

import pandas as pd

from sfllava.plots import ACCURACY, Chart, Panel, kind_of, series_of
from sfllava.results import accuracy, costs

# column, label, and what one unit of the label is
AXES = (
    ("tokens", "visual tokens", 1),
    ("prefill_flops", "prefill, TFLOP a video", 1e12),
    ("kv_bytes", "keys and values, MB in half precision", 1e6),
    ("seconds", "encode and prefill, seconds a video, cold", 1),
    ("peak_bytes", "peak GPU memory, GB", 1e9),
)


def draw(results: pd.DataFrame) -> Chart | str:
    """A panel for each cost that is known of all settings."""
    known = costs(results)
    table = accuracy(results).drop(columns="tokens").merge(known, on="name")
    table["kind"] = table["aggregation"].map(kind_of)
    kinds = list(table["kind"].unique())
    panels = []
    for column, label, unit in AXES:
        if column not in table or table[column].isna().any():
            continue
        part = table.assign(x=table[column] / unit)
        lines = [series_of(part[part["kind"] == kind], "x", kind, i) for i, kind in enumerate(kinds)]
        panels.append(Panel(label, ACCURACY, lines, log_x=True))
    return Chart(panels[:4]) if panels else "no costs are known"
