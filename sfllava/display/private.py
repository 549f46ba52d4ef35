"""What is left out of texts that others may read: passwords in URLs."""

from __future__ import annotations

import re
import sys

# up to the last @: a password that is not percent-encoded may itself have @, / and ? in it
_CREDENTIALS = re.compile(r"(?<!/)(//+)(?=[^\s/?#]{0,1000}[:@])\S{0,1000}@")
_SECRET_OPTION = re.compile(r"([?&;][^\s=&;#]*(?:passw|pwd|token|secret|key|signature)[^\s=&;#]*=)[^\s&;#'\"]+", re.I)


def without_credentials(text: str) -> str:
    """Return a text without the users, passwords and keys in its URLs; rather too much is cut than too little."""
    return _SECRET_OPTION.sub(r"\1***", _CREDENTIALS.sub(r"\1", text))


def command_line() -> list[str]:
    """Return the command line of this process as it may be stored: a tracker's URI may have a password."""
    return [without_credentials(argument) for argument in sys.argv]
