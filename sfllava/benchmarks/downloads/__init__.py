"""Download question files and videos.

addresses.py turns the URL that a benchmark declares into an HTTP request; fetch.py downloads one file and resumes an
interrupted download; unpack.py unpacks archives; downloading.py does this for the files of several benchmarks.
"""

from __future__ import annotations

from sfllava.benchmarks.downloads.downloading import Outcome, Target, download, find_targets
from sfllava.benchmarks.downloads.fetch import DownloadError

__all__ = ["DownloadError", "Outcome", "Target", "download", "find_targets"]
