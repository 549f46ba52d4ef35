"""What a run would take, before it uses a GPU: `plan`, and what it is made of.

roofline.py and probes.py measure a device; stages.py turns that into the cost of each stage; workload.py has what is
asked; fitting.py has memory, and what fits; planner.py plans a whole run, and plans.py has the result. presets.py has
published figures of devices, to plan for without having one.
"""

from __future__ import annotations

from sfllava.planning.planner import plan, plan_presets
from sfllava.planning.plans import Plan, SettingPlan
from sfllava.planning.presets import preset_roofline

__all__ = ["Plan", "SettingPlan", "plan", "plan_presets", "preset_roofline"]
