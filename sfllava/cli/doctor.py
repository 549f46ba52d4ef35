"""Check this installation: versions, devices, decoders, disks, keys, and what each feature lacks."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from sfllava.cli.parser import group

if TYPE_CHECKING:
    from sfllava.cli.diagnosis.finding import Finding

ORDER = 0.7
EXAMPLES = ("sfllava doctor", "sfllava doctor --json > doctor.json")
_WIDTH = 100  # columns where the output is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group(parser, "output").add_argument(
        "--json", action="store_true", help="print JSON: whether all that is required works, and the findings"
    )


def run(arguments: argparse.Namespace) -> int:
    from sfllava.cli.diagnosis import diagnose

    found = diagnose()
    broken = [one for findings in found.values() for one in findings if one.state == "broken"]
    if arguments.json:
        sections = {section: [vars(one) for one in findings] for section, findings in found.items()}
        print(json.dumps({"ok": not broken, "sections": sections}, ensure_ascii=False, indent=1))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
        print(_table(found, columns))
        print(_summary(found, len(broken)))
    return 1 if broken else 0


def _table(found: dict[str, list[Finding]], columns: int) -> str:
    """Return the findings, section by section, in so many columns."""
    width = max(len(one.name) for findings in found.values() for one in findings)
    lines = []
    for section, findings in found.items():
        lines.append(section)
        for one in findings:
            first, later = f"  {one.state:7}  {one.name:{width}}  ", " " * (width + 13)
            lines += textwrap.wrap(
                one.text, max(columns, 60), initial_indent=first, subsequent_indent=later, break_on_hyphens=False
            ) or [first.rstrip()]
        lines.append("")
    return "\n".join(lines)


def _summary(found: dict[str, list[Finding]], broken: int) -> str:
    states = [one.state for findings in found.values() for one in findings]
    text = (
        f"{broken} required thing{'s are' if broken > 1 else ' is'} broken" if broken else "all that is required works"
    )
    if warnings := states.count("warning"):
        text += f"; {warnings} warning{'s' * (warnings > 1)}"
    return f"{text}; no line above has a path, a user's name or a key"
