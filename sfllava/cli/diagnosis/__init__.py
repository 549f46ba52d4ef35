"""What `sfllava doctor` finds out: versions, devices, decoders, disks, keys and what is missing for what.

No finding has a key's value, a path of this machine or the name of a user, so that it can be published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sfllava.cli.diagnosis import environment, machine, packages
from sfllava.cli.diagnosis.decoding import Decoding
from sfllava.cli.diagnosis.finding import Finding, without_private


def diagnose() -> dict[str, list[Finding]]:
    """Return the findings by section; a check that fails is a finding of its own."""
    found: dict[str, list[Finding]] = {}
    with Decoding() as decoding:
        sections: dict[str, Callable[[], Iterator[Finding]]] = {
            "versions": packages.versions, "devices": machine.devices, "decoders": decoding.findings,
            "disk": machine.disks, "keys": environment.keys, "extras": packages.extras,
            "variables": environment.variables,
        }  # fmt: skip
        for section, check in sections.items():
            findings = found.setdefault(section, [])
            try:
                findings += check()
            except Exception as error:  # the report is needed most where something unexpected is wrong
                findings.append(Finding(section, f"cannot be checked: {type(error).__name__}: {error}", "broken"))
    return {section: [without_private(one) for one in findings] for section, findings in found.items()}
