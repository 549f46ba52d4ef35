"""What is left out of texts that others may read: passwords in URLs, and the folders of a machine."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# up to the last @: a password that is not percent-encoded may itself have @, / and ? in it
_CREDENTIALS = re.compile(r"(?<!/)(//+)(?=[^\s/?#]{0,1000}[:@])\S{0,1000}@")
_SECRET_OPTION = re.compile(r"([?&;][^\s=&;#]*(?:passw|pwd|token|secret|key|signature)[^\s=&;#]*=)[^\s&;#'\"]+", re.I)

_SLASH = r"[\\/]"
# a character of a folder's name: no quote but an apostrophe within a word, and no colon at the end of a word
_CHARACTER = r"(?:[^\s\\/'\",;:]|(?<=\w)'(?=\w)|:(?=[^\s\\/'\"]))"
# spaces belong to a name where a separator follows; the name of a video is not that of a folder
_SPACES = r"(?<!\.(?:mp4|mkv|avi|mov))(?<!\.webm) +"
_FOLDER = rf"{_CHARACTER}++(?:{_SPACES}{_CHARACTER}++)*+{_SLASH}++"
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}"
_FOLDERS = re.compile(
    rf"(?P<url>{_SCHEME}://(?!/)(?<!\bfile://)\S*)"
    rf"|(?P<uri>\bfile:/+|{_SCHEME}:///+)(?:{_FOLDER})*(?=[^\s\\/])"
    rf"|(?<![\w.~\\/-])(?:(?:~|[A-Za-z]:)?{_SLASH}|(?<!:){_SLASH}{{2}})(?P<inner>(?:{_FOLDER})*)(?=[^\s\\/])",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """Return a text without the users, passwords and keys in its URLs; rather too much is cut than too little."""
    return _SECRET_OPTION.sub(r"\1***", _CREDENTIALS.sub(r"\1", text))


def command_line() -> list[str]:
    """Return the command line of this process as it may be stored: a tracker's URI may have a password."""
    return [without_credentials(argument) for argument in sys.argv]


def cut_folders(text: str, roots: Iterable[object] = (), mark: str = "", keep_single: bool = False) -> str:
    """Cut the folders off every absolute path and every file: URI in a text.

    Args:
        text: The text; where a name has spaces, they are part of the path if a further separator follows.
        roots: Folders that may be in the text, whatever their names contain; the working folder and the home folder
            are always known.
        mark: What is written in place of the folders.
        keep_single: Leave a path without any folder, such as /x, as it is.
    """
    own = _own_folders()
    for root in sorted({str(root) for root in [*roots, *own.values()] if root}, key=len, reverse=True):
        if Path(root).is_absolute() and len(Path(root).parts) > 1:
            known = r"(?<![\w.~\\/-])(?:file:(?://)?)?" + re.escape(root.rstrip("\\/"))
            text = re.sub(rf"{known}(?=[\\/])", "~", text)
            if root == str(own.get("home")):
                text = re.sub(rf"{known}(?![\w.-])", "~", text)

    def cut(found: re.Match[str]) -> str:
        alone = keep_single and not found["uri"] and not found["inner"] and not found[0].startswith("~")
        return found[0] if found["url"] or alone else mark

    return _FOLDERS.sub(cut, text)


def _own_folders() -> dict[str, Path]:
    found = {}
    for name, find in (("home", Path.home), ("cwd", Path.cwd)):
        with contextlib.suppress(OSError, RuntimeError):  # a user without a home, a folder that was removed
            found[name] = find()
    return found


def private_folders(about: Mapping[str, Any]) -> list[str]:
    """Return the folders of videos and subtitles that a run.json names, of all its sessions."""
    sessions = [session for session in about.get("sessions", []) if isinstance(session, dict)]
    found = [session.get(name) for session in sessions for name in ("videos", "subtitle_files")]
    return [folder for folder in dict.fromkeys(found) if isinstance(folder, str)]
