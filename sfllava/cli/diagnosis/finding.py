"""One line of a diagnosis, and what it must not contain."""

from __future__ import annotations

import getpass
import os
import platform
import re
from dataclasses import dataclass, replace
from typing import Literal

from sfllava.display.private import cut_folders, without_credentials

State = Literal["ok", "info", "missing", "warning", "broken"]
"""`missing` is optional; only `broken` keeps sfllava from working"""
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PROXY|ORG$|URL$|URI$|ENDPOINT$", re.IGNORECASE)
"""Names of variables whose values are never shown"""


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing."""

    name: str
    text: str
    state: State = "ok"


def without_private(finding: Finding) -> Finding:
    """Return a finding without paths, keys, and the names of the user and the machine."""
    text = " ".join(finding.text.split())
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 6:
            text = text.replace(value, "[hidden]")
    text = cut_folders(without_credentials(text), mark=".../", keep_single=True)
    for private, shown in ((_user(), "USER"), (platform.node(), "HOST")):
        if len(private) > 2 and private not in ("root", "localhost"):
            text = re.sub(rf"(?<!\w){re.escape(private)}(?!\w)", shown, text)
    return replace(finding, text=text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return ""
