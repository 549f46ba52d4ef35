"""Tune the rule that turns frame scores into spans, on questions that are not reported."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from sfllava.attribution.grounding.annotations import Span
from sfllava.attribution.grounding.metrics import METRICS, compute_metrics
from sfllava.attribution.grounding.span_rule import SpanRule
from sfllava.files import Row
from sfllava.types import SfllavaError

WINDOWS = (1, 3, 5, 7, 9)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CRITERION = "Acc@GQA"


def tune(rows: Sequence[Row], by: str = CRITERION) -> dict[str, SpanRule]:
    """Find the best rule for each measure of the frame scores, on a grid of WINDOWS and SHARES.

    The best rule has the highest `by`. Ties are broken by mIoU, since Acc@GQA and IoP do not distinguish a span from a
    part of it, and then by the order of the grid.

    Args:
        rows: grounded questions (`results.read_rows`), but not those whose metrics are reported.
        by: one of `metrics.METRICS` that depends on the span.

    Returns:
        Measure of the frame scores, such as "leave-out" -> the best rule.

    Raises:
        SfllavaError: the metric is unknown, or no row has scores.
    """
    check_criterion(by)
    names = dict.fromkeys(name for row in rows for name in row["frame_scores"])
    if not names:
        raise SfllavaError(f"nothing to tune on: none of {len(rows)} questions has frame scores")
    spans, right = [row["spans"] for row in rows], [row["right"] for row in rows]
    best: dict[str, SpanRule] = {}
    for name in names:
        rules = [SpanRule(window, share) for window, share in product(WINDOWS, SHARES)]
        found = [compute_metrics([predict(row, name, rule) for row in rows], spans, right) for rule in rules]
        order = [(float(np.mean(each[by])), float(np.mean(each["mIoU"]))) for each in found]
        best[name] = rules[order.index(max(order))]
    return best


def check_criterion(by: str) -> None:
    """Raise SfllavaError if rules cannot be tuned by a metric: it is unknown, or does not depend on the span."""
    possible = [name for name in METRICS if name != "Acc@QA"]
    if by not in possible:
        raise SfllavaError(f"needed a metric of spans to tune by, {', '.join(possible)}, got {by!r}")


def predict(row: Row, name: str, rule: SpanRule) -> Span | None:
    """Return the span that a rule predicts from the frame scores of a row; None if the row has no scores."""
    scores = row["frame_scores"].get(name)
    return rule.span(scores, row["frame_edges"]) if scores else None
