"""Downloading question files and videos.

addresses.py turns the URL that a benchmark declares into what is asked of a server; fetch.py downloads one file and
goes on with a part of it; unpack.py unpacks archives; downloading.py does this for the files of several benchmarks.
"""

from __future__ import annotations

from sfllava.benchmarks.downloads.downloading import Outcome, Target, download, find_targets
from sfllava.benchmarks.downloads.fetch import DownloadError

__all__ = ["DownloadError", "Outcome", "Target", "download", "find_targets"]
