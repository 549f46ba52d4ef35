"""What the fault tests tried, what survived and what was lost: gathered line by line, and drawn up as a table.

`make faults` runs them in full and keeps the table; `make test` runs fewer of what is slow, and keeps nothing.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import TypeVar

from sfllava.runs.evaluate import versions

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
FULL = bool(os.environ.get("SFLLAVA_FAULTS"))
_PAGE = """# Faults

What `make faults` tried on {date} (Python {python}, torch {torch}, {cores} cores), and what came of it. *Survived*:
the work ended, or went on when started again, with the results of an undisturbed run, or with one line that names what
is wrong. *Lost*: answers, verdicts or files that were there before and were not there after.

| fault | tried | survived | lost | how it was told |
|---|---|---|---|---|
{rows}

"""


def some(few: T, full: T) -> T:
    """How often to try: `full` under `make faults`, `few` otherwise."""
    return full if FULL else few


def record(fault: str, tried: int, survived: int, lost: int, told: str) -> None:
    """Keep a row of the table; `told` says in a few words how survival was told."""
    if FULL:
        row = {"fault": fault, "tried": tried, "survived": survived, "lost": lost, "told": told}
        with Path(os.environ["SFLLAVA_FAULTS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def draw_up() -> str:
    """Write docs/faults.md and bench/results/faults-DATE.json from what was recorded; the table."""
    rows = [json.loads(line) for line in Path(os.environ["SFLLAVA_FAULTS"]).read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: row["fault"])
    today, found = date.today().isoformat(), versions()
    result = {"date": today, "cores": os.cpu_count(), "arch": platform.machine(), "versions": found, "faults": rows}
    (ROOT / "bench" / "results" / f"faults-{today}.json").write_text(json.dumps(result, indent=1) + "\n")
    cells = "\n".join(
        f"| {row['fault']} | {row['tried']:,} | {row['survived']:,} | {row['lost']:,} | {row['told']} |" for row in rows
    )
    page = _PAGE.format(date=today, python=found["python"], torch=found["torch"], cores=os.cpu_count(), rows=cells)
    (ROOT / "docs" / "faults.md").write_text(page)
    return page


if __name__ == "__main__":
    print(draw_up())
