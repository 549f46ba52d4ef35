"""The explorer: see what the model sees, in JupyterLab."""

from __future__ import annotations

from sfllava.explorer.app import Explorer, explore
from sfllava.explorer.session import Reply, Session

__all__ = ["Explorer", "Reply", "Session", "explore"]
