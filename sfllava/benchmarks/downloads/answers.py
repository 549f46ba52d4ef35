"""What the headers of a server's answer say: length, range, version of the file, when to ask again."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping

_Headers = Mapping[str, str]


def read_extent(status: int, headers: _Headers) -> tuple[int | None, int]:
    """Return the size of the whole file, None if it is not said, and where the body begins, -1 if it is not said."""
    # Python reads no number of thousands of digits
    if status == 206:
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("content-range", ""))
        if not match:
            return None, -1
        return (int(match[2]) if match[2] != "*" else None), int(match[1])
    length = headers.get("content-length", "")
    return (int(length) if re.fullmatch(r"\d{1,18}", length) else None), 0


def read_validator(headers: _Headers) -> str:
    """Return a strong ETag, else the date of the last change: what If-Range may be asked with; empty if neither is."""
    etag = headers.get("etag", "")
    found = etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
    return found if can_be_sent(found) else ""


def is_other_version(headers: _Headers, validator: str) -> bool:
    """Return whether an answer is about another version of a file than a validator of it: servers may ignore If-Range.

    An answer that has no validator of that kind is taken for the same version.
    """
    found = headers.get("etag" if validator.startswith('"') else "last-modified", "")
    return bool(validator and found) and not found.startswith("W/") and found != validator


def can_be_sent(value: str) -> bool:
    """Return whether a header can have a value."""
    return value.isascii() and value.isprintable()


def read_retry_after(headers: _Headers) -> float | None:
    """Return the seconds of Retry-After, which has a number or a date; None if it has neither."""
    text = headers.get("retry-after", "")
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
