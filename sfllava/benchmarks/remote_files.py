"""Where the files of a benchmark can be downloaded; its module declares this in `Spec.downloads`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file that can be downloaded.

    Args:
        path: its path below the root.
        url: https://..., or hf://datasets/OWNER/NAME@REVISION/PATH for a file of a data set on the Hugging Face Hub.
        size: its size in bytes; None if unknown.
        sha256: its SHA-256 in hexadecimal, empty if unknown.
        unpack: for an archive, the folder below the root to unpack it into. The archive is deleted afterwards.
    """

    path: str
    url: str
    size: int | None = None
    sha256: str = ""
    unpack: str | None = None


@dataclass(frozen=True)
class Videos:
    """What is known about downloading a benchmark's videos.

    Args:
        licence: a short description of their licence.
        place: the URL of the page or file that offers them.
        size: their size, as text.
        files: the files that anyone can download without a login or a form; may be empty.
    """

    licence: str
    place: str
    size: str
    files: tuple[RemoteFile, ...] = ()


@dataclass(frozen=True)
class Downloads:
    """Where a benchmark's files are.

    Args:
        questions: its question files.
        licence: a short description of the licence of the question files.
        videos: what is known about its videos.
    """

    questions: tuple[RemoteFile, ...]
    licence: str
    videos: Videos


def github_url(repo: str, commit: str, path: str) -> str:
    """Return the URL of a file in a GitHub repository (OWNER/NAME) at a commit."""
    return f"https://raw.githubusercontent.com/{repo}/{commit}/{path}"


def hub_url(repo: str, revision: str, path: str) -> str:
    """Return the URL of a file in a Hub data set (OWNER/NAME) at a revision."""
    return f"hf://datasets/{repo}@{revision}/{path}"
