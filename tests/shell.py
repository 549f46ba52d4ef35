"""The command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys


def sfllava(*arguments, cwd=None, **environment):
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sfllava.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )
