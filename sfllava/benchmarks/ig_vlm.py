"""The question files of IG-VLM (arXiv 2403.18406), which the published code and eight benchmarks here use.

Sizes and SHA-256 were computed from the files in a clone of the repository at this commit.
"""

from __future__ import annotations

from sfllava.benchmarks.remote_files import RemoteFile, github_url

COMMIT = "00d11ab4f835d4930cd19376a2dc5f73b7206f5a"
LICENCE = "BSD 3-Clause (the IG-VLM repository); the questions are by the benchmark's authors"


def ig_vlm_file(path: str, size: int, sha256: str) -> RemoteFile:
    """Return a question file of the IG-VLM repository.

    Args:
        path: its path below the folder `data` of the repository, and also below the root.
        size: its size in bytes.
        sha256: its SHA-256 in hexadecimal.
    """
    return RemoteFile(path, github_url("imagegridworth/IG-VLM", COMMIT, f"data/{path}"), size, sha256)
