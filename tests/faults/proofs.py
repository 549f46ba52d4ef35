"""Test a property on many generated inputs, and record the counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fault_table import record, some
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy


def prove(
    fault: str, outcome: str, inputs: SearchStrategy, check: Callable[[Any], object], few: int = 50, full: int = 1000
) -> None:
    """Call `check` with inputs that hypothesis generates; it must raise if the property does not hold.

    The number of inputs is `full` under `make faults`, `few` otherwise. `fault` and `outcome` go into the table.
    """
    tried = survived = 0

    @settings(max_examples=some(few, full), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def run(value: Any) -> None:
        nonlocal tried, survived
        tried += 1
        check(value)
        survived += 1

    try:
        run()
    finally:
        record(fault, tried, survived, tried - survived, outcome)
