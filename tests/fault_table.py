"""Record what the fault tests tried, what survived and what was lost, and write it as a table.

`make faults` runs every test at full count and writes the table; `make test` repeats slow tests less often and writes
none.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import TypeVar

from sfllava.models.host import versions

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
FULL = bool(os.environ.get("SFLLAVA_FAULTS"))
_PAGE = """# Faults

`make faults` injected these faults on {date} (Python {python}, torch {torch}, {cores} cores). *Survived*: the
command finished, after a restart if necessary, with the results of an undisturbed run, or it ended with one line that
names the problem. *Lost*: answers, verdicts or files that existed before the fault and not after it.

| fault | tried | survived | lost | outcome |
|---|---|---|---|---|
{rows}

"""


def some(few: T, full: T) -> T:
    """Return `full` under `make faults`, `few` otherwise."""
    return full if FULL else few


def record(fault: str, tried: int, survived: int, lost: int, outcome: str) -> None:
    """Record a row of the table under `make faults`.

    Args:
        fault: the fault, by which the rows are sorted.
        tried: how often it was tried.
        survived: after how many of these the results were right, or the problem was named.
        lost: how many answers, verdicts or files disappeared.
        outcome: what happened, in a few words.
    """
    if FULL:
        row = {"fault": fault, "tried": tried, "survived": survived, "lost": lost, "outcome": outcome}
        with Path(os.environ["SFLLAVA_FAULTS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def write_table() -> str:
    """Write docs/concepts/faults.md and bench/results/faults-DATE.json from the recorded rows, and return the page."""
    rows = [json.loads(line) for line in Path(os.environ["SFLLAVA_FAULTS"]).read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: row["fault"])
    today, found = date.today().isoformat(), versions()
    result = {"date": today, "cores": os.cpu_count(), "arch": platform.machine(), "versions": found, "faults": rows}
    (ROOT / "bench" / "results" / f"faults-{today}.json").write_text(json.dumps(result, indent=1) + "\n")
    cells = "\n".join(
        f"| {row['fault']} | {row['tried']:,} | {row['survived']:,} | {row['lost']:,} | {row['outcome']} |"
        for row in rows
    )
    page = _PAGE.format(date=today, python=found["python"], torch=found["torch"], cores=os.cpu_count(), rows=cells)
    (ROOT / "docs" / "concepts" / "faults.md").write_text(page)
    return page


if __name__ == "__main__":
    print(write_table())
