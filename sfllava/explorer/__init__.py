"""The explorer: see what the model sees, in JupyterLab."""

from sfllava.explorer.app import Explorer, explore
from sfllava.explorer.session import Reply, Session

__all__ = ["Explorer", "Reply", "Session", "explore"]
