"""The state of one worker, as the process that hands out the videos keeps it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from sfllava.runs.failures import Streak
from sfllava.runs.jobs import Job


@dataclass(eq=False)
class RayWorker:
    """What the driver knows about one worker."""

    actor: Any
    group: Any = None
    """Ray's reservation of what it needs"""
    ahead: deque[Job] = field(default_factory=deque)
    """Jobs whose videos it decodes while it answers another"""
    node: str = ""
    """Ray's id of the node that it was on when it last answered; none while it comes up"""
    streak: Streak = field(default_factory=Streak)
    """Jobs in a row that it failed at, in this run"""
    broken: Streak | None = None
    """What it failed at, where it gets no more work"""
