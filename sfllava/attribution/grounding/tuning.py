"""Choosing the rule from frame scores to spans, on questions that are not reported."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from sfllava.attribution.grounding.annotations import Span
from sfllava.attribution.grounding.metrics import MEASURES, measure
from sfllava.attribution.grounding.span_rule import SpanRule
from sfllava.files import Row
from sfllava.types import SfllavaError

WINDOWS = (1, 3, 5, 7, 9)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CRITERION = "Acc@GQA"


def tune(rows: Sequence[Row], by: str = CRITERION) -> dict[str, SpanRule]:
    """Find the best rule for each way to score frames, on a grid of WINDOWS and SHARES.

    The best has the highest `by`. Of equal ones it is the one with the highest mIoU, since Acc@GQA and IoP alone do not
    tell a span from a part of it; then the first of the grid.

    Args:
        rows: grounded questions (`results.read_rows`). They must not be those whose measures are reported.
        by: one of `metrics.MEASURES` that depends on the span.

    Returns:
        How frames are scored, such as "leave-out" -> the best rule.

    Raises:
        SfllavaError: there is no such measure, or no row has scores.
    """
    check_criterion(by)
    names = dict.fromkeys(name for row in rows for name in row["frame_scores"])
    if not names:
        raise SfllavaError(f"nothing to tune on: none of {len(rows)} questions has frame scores")
    spans, right = [row["spans"] for row in rows], [row["right"] for row in rows]
    best: dict[str, SpanRule] = {}
    for name in names:
        rules = [SpanRule(window, share) for window, share in product(WINDOWS, SHARES)]
        found = [measure([predict(row, name, rule) for row in rows], spans, right) for rule in rules]
        order = [(float(np.mean(each[by])), float(np.mean(each["mIoU"]))) for each in found]
        best[name] = rules[order.index(max(order))]
    return best


def check_criterion(by: str) -> None:
    """Raise SfllavaError if rules cannot be tuned by a measure: it is not known, or does not depend on the span."""
    possible = [name for name in MEASURES if name != "Acc@QA"]
    if by not in possible:
        raise SfllavaError(f"needed a measure of spans to tune by, {', '.join(possible)}, got {by!r}")


def predict(row: Row, name: str, rule: SpanRule) -> Span | None:
    """Return the span that a rule makes of the frame scores of a row; None where it has none."""
    scores = row["frame_scores"].get(name)
    return rule.span(scores, row["frame_edges"]) if scores else None
