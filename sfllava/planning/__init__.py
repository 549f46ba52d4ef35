"""What a run would take, before a GPU hour is spent: `plan`, and what it is made of.

`workload` (what is asked), `stages` (what each stage costs on a measured device), `fitting` (memory, and what fits),
`planner` (a whole run), `plans` (what it finds), `commands` (the command line).
"""

from sfllava.planning.planner import plan
from sfllava.planning.plans import Plan, SettingPlan

__all__ = ["Plan", "SettingPlan", "plan"]
