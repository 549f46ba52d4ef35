"""The URL that a benchmark declares -> the address to request: Hub endpoint, mirror, token."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sfllava.types import SfllavaError

_HUB = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)@(?P<revision>[^/]+)/(?P<path>.+)")


class DownloadError(SfllavaError):
    """A file cannot be downloaded, checked or unpacked; the message names it."""


@dataclass(frozen=True)
class Address:
    """What to request from a server.

    Args:
        url: the http or https URL.
        headers: the headers of the request.
        page: for a file on the Hub: the page of its data set, where users accept its terms.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    page: str = ""


def resolve(url: str, source: str | None = None) -> Address:
    """Return the address of a file.

    Args:
        url: its URL in `RemoteFile`.
        source: an http or https URL that replaces scheme and host, for a mirror; the path stays the same.

    Returns:
        Its address. A file on the Hub uses the endpoint in HF_ENDPOINT, and the user's token unless there is a
        `source`: the token is only for the Hub, not for a mirror.

    Raises:
        DownloadError: `source` is not an http or https URL.
    """
    page, headers = "", {}
    if hub := _HUB.fullmatch(url):
        # Plain HTTP instead of `hf_hub_download`, which has no `--source`, does not check our SHA-256, and keeps a
        # cache. This way, files from GitHub and from the Hub are downloaded, resumed and checked by the same code.
        from huggingface_hub import constants, get_token, hf_hub_url

        url = hf_hub_url(hub["repo"], hub["path"], repo_type="dataset", revision=hub["revision"])
        page = f"{constants.ENDPOINT}/datasets/{hub['repo']}"
        if not source and (token := get_token()):
            headers["Authorization"] = f"Bearer {token}"
    return Address(_replace_host(url, source) if source else url, headers, page)


def _replace_host(url: str, source: str) -> str:
    check_source(source)
    parts = urlsplit(url)
    return source.rstrip("/") + parts.path


def check_source(source: str) -> None:
    """Raise DownloadError unless the URL of a mirror is an http or https URL with a host."""
    try:
        parts = urlsplit(source)
        good = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        good = good and parts.port != 0  # `port` raises on one that is out of range
    except ValueError:
        good = False
    if not good:
        raise DownloadError(f"--source {source}: needed an address such as https://mirror.example/path")
