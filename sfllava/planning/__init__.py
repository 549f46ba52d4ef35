"""What a run would take, before a GPU hour is spent: `plan`, and what it is made of.

`workload` (what is asked), `stages` (what each stage costs on a measured device), `fitting` (memory, and what fits),
`planner` (a whole run), `plans` (what it finds), `commands` (the command line).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfllava.planning.planner import plan
    from sfllava.planning.plans import Plan, SettingPlan


__all__ = ["Plan", "SettingPlan", "plan"]


def __getattr__(name: str) -> Any:
    # on first use: the command line imports this package for its options, which need no torch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sfllava.planning import planner

    return getattr(planner, name)
