"""How commands print the scores of a run that has ended."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfllava.runs.evaluate import Run


def scores_text(result: Run) -> str:
    """Return the scores as a table, with intervals where the packages for statistics are installed."""
    if not find_spec("scipy"):
        return result.text()
    from sfllava.analysis.score_intervals import intervals

    found = intervals(result.scores)
    hint = f"which answers are wrong: sfllava compare {shlex.quote(str(result.path))} --rows answers.csv"
    return f"{result.text(found)}\n{hint}" if found else result.text()
