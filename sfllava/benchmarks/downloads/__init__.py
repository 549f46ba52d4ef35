"""Downloading question files and videos.

addresses.py turns the URL that a benchmark declares into what is asked of a server, and answers.py reads what the
server says; fetch.py downloads one file and goes on with a part of it (part.py); unpack.py unpacks archives;
downloading.py does this for the files of several benchmarks.
"""

from __future__ import annotations

from sfllava.benchmarks.downloads.downloading import Outcome, Target, download, find_targets
from sfllava.benchmarks.downloads.fetch import DownloadError

__all__ = ["DownloadError", "Outcome", "Target", "download", "find_targets"]
