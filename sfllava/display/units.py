"""Quantities as people read them: 3.4 s, 12.5 TFLOP, p < 0.001."""

from __future__ import annotations

from collections.abc import Mapping

_OPERATIONS = {"PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6, "FLOP": 1}
_SECONDS = {"s": 1, "ms": 1e-3, "µs": 1e-6}


def format_operations(number: float) -> str:
    """Return a number of floating-point operations, such as 12.5 TFLOP."""
    return _scaled(number, _OPERATIONS)


def format_seconds(seconds: float) -> str:
    """Return a duration, such as 3.4 s, 120 ms or 12 min."""
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:,.0f} min" if seconds >= 600 else _scaled(seconds, _SECONDS)


def format_p(p: float) -> str:
    """Return a p-value with three decimals, such as 0.012; smaller ones as < 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _scaled(number: float, units: Mapping[str, float]) -> str:
    """Return a number in the largest unit in which it is at least 1."""
    unit = next((unit for unit, size in units.items() if number >= size), list(units)[-1])
    value = number / units[unit]
    return f"{value:,.0f} {unit}" if value >= 100 or value == round(value) else f"{value:.1f} {unit}"
