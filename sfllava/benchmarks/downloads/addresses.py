"""The URL that a benchmark declares -> the address that is asked: the hub's endpoint, a mirror, a token."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sfllava.types import SfllavaError

_HUB = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)@(?P<revision>[^/]+)/(?P<path>.+)")

_TOKEN_GOES_TO = "https://huggingface.co/"


class DownloadError(SfllavaError):
    """A file cannot be downloaded, checked or unpacked; the message names it."""


@dataclass(frozen=True)
class Address:
    """What is asked of a server.

    Args:
        url: the http or https URL.
        headers: what is sent with the request.
        page: for a file of the hub: the page of its data set, on which terms are accepted.
        is_mirror: for a file of the hub: it is asked of another server, which gets no token.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    page: str = ""
    is_mirror: bool = False


def resolve(url: str, source: str | None = None) -> Address:
    """Return the address of a file.

    Args:
        url: its URL, as `RemoteFile` has it.
        source: an http or https URL that takes the place of scheme and host, for a mirror; the path stays.

    Returns:
        Its address. A file of the hub has the endpoint of HF_ENDPOINT. Only https://huggingface.co gets the user's
        token: a token is the hub's business, not a mirror's, whether HF_ENDPOINT or `source` names it.

    Raises:
        DownloadError: `source` is not an http or https URL.
    """
    page, headers, is_mirror = "", {}, False
    if hub := _HUB.fullmatch(url):
        # Plain HTTP instead of `hf_hub_download`: that has no `--source`, checks no SHA-256 of ours and keeps a cache.
        # So the files of GitHub and of the hub are fetched, resumed and checked in one way.
        from huggingface_hub import constants, get_token, hf_hub_url

        url = hf_hub_url(hub["repo"], hub["path"], repo_type="dataset", revision=hub["revision"])
        page = f"{constants.ENDPOINT}/datasets/{hub['repo']}"
        is_mirror = bool(source) or not url.startswith(_TOKEN_GOES_TO)
        if not is_mirror and (token := get_token()):
            headers["Authorization"] = f"Bearer {token}"
    return Address(_replace_host(url, source) if source else url, headers, page, is_mirror)


def _replace_host(url: str, source: str) -> str:
    check_source(source)
    parts = urlsplit(url)
    return source.rstrip("/") + parts.path


def check_source(source: str) -> None:
    """Raise DownloadError unless a mirror's URL is an http or https URL with a host."""
    try:
        parts = urlsplit(source)
        good = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        good = good and parts.port != 0  # `port` raises on one that is out of range
    except ValueError:
        good = False
    if not good:
        raise DownloadError(f"--source {source}: needed an address such as https://mirror.example/path")
