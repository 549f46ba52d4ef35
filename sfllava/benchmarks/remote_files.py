"""Where the files of a benchmark can be downloaded, as its own module declares it in `Spec.downloads`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file that can be downloaded.

    Args:
        path: where it goes, below the root.
        url: https://..., or hf://datasets/OWNER/NAME@REVISION/PATH for a file of a data set on the Hugging Face hub.
        size: its size in bytes, None if unknown.
        sha256: its SHA-256 in hexadecimal, empty if unknown.
        unpack: for an archive: the folder below the root into which it is unpacked. The archive is removed afterwards.
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
        licence: what their licence allows, in a few words.
        place: URL of the page or file that offers them.
        size: their size, in words.
        files: those that anyone may download without a login or a form; none if there are no such files.
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
        licence: the licence of the question files, in a few words.
        videos: what is known about its videos.
    """

    questions: tuple[RemoteFile, ...]
    licence: str
    videos: Videos


def github_url(repo: str, commit: str, path: str) -> str:
    """Return the URL of a file in a GitHub repository (OWNER/NAME) at a commit."""
    return f"https://raw.githubusercontent.com/{repo}/{commit}/{path}"


def hub_url(repo: str, revision: str, path: str) -> str:
    """Return the URL of a file in a data set of the hub (OWNER/NAME) at a revision."""
    return f"hf://datasets/{repo}@{revision}/{path}"
