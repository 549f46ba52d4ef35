"""Download one file over HTTP: resume partial files, retry temporary failures, check size and SHA-256."""

from __future__ import annotations

import email.utils
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sfllava.benchmarks.downloads.addresses import Address, DownloadError
from sfllava.benchmarks.downloads.part import Part, file_sha256
from sfllava.files import format_bytes
from sfllava.progress import progress_bar

_BUSY = (408, 425, 429, 500, 502, 503, 504)  # temporary statuses
_LONGEST_WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class FetchOptions:
    """How to download a file.

    Args:
        tries: give up after this many consecutive attempts without new data.
        timeout_seconds: the longest time without data from the server.
        first_wait_seconds: the wait before the second attempt, doubled each time, unless the server specifies one.
        progress: show a progress bar.
        sleep: function that waits for a number of seconds.
    """

    tries: int = 5
    timeout_seconds: float = 60.0
    first_wait_seconds: float = 1.0
    progress: bool = True
    sleep: Callable[[float], None] = time.sleep


class _TryAgainError(Exception):
    """A temporary failure. `wait_seconds` is the wait that the server asked for."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def fetch(address: Address, part: Part, size: int | None, sha256: str, options: FetchOptions) -> int:
    """Download a file to its path; resume it if an earlier call was interrupted.

    Args:
        address: what to request from the server.
        part: the partial file; it becomes the complete file at the end.
        size: the file's size in bytes; None if unknown.
        sha256: the file's SHA-256, empty if unknown; then the SHA-256 that the Hub reports is used, if there is one.
        options: how to download it.

    Returns:
        The number of bytes that this call received.

    Raises:
        DownloadError: the file cannot be downloaded, or has the wrong size or SHA-256. The data stay for the next call
            unless they are wrong.
    """
    received, failures = 0, 0
    while True:
        before = part.size
        attempt = _Attempt(address, part, size, sha256, options)
        try:
            attempt.run()
            attempt.check_whole()
            break
        except _TryAgainError as problem:
            # an attempt with new data is not a failure: some servers often cut off long transfers
            failures = 1 if part.size > before else failures + 1
            if failures >= options.tries:
                raise DownloadError(f"{address.url}: {problem} (tried {failures} times)") from problem
            _wait(address, problem, failures, options)
        finally:
            received += attempt.received
    part.finish()
    return received


def _wait(address: Address, problem: _TryAgainError, failures: int, options: FetchOptions) -> None:
    wait = options.first_wait_seconds * 2 ** (failures - 1) if problem.wait_seconds is None else problem.wait_seconds
    if problem.wait_seconds is not None and wait > _LONGEST_WAIT_SECONDS:
        raise DownloadError(f"{address.url}: {problem}, and the server asks to wait {wait:,.0f} s: try again later")
    options.sleep(min(wait, _LONGEST_WAIT_SECONDS))


class _Attempt:
    """One request, and what its response says about the file."""

    def __init__(self, address: Address, part: Part, size: int | None, sha256: str, options: FetchOptions) -> None:
        self.address, self.part, self.options = address, part, options
        self.size, self.sha256 = size, sha256
        self.resumed, self.received = False, 0

    def run(self) -> None:
        """Request the missing bytes, and append them to the partial file."""
        offset = self._offset()
        if self.sha256 and offset == self.size:  # without a SHA-256, only the server can tell that it is complete
            self.resumed = True
            return
        # All requests use the session of huggingface_hub: it is installed with transformers, respects HTTP(S)_PROXY
        # and NO_PROXY, and does not send the token to other hosts after a redirect.
        from huggingface_hub import get_session
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

        headers = {"Accept-Encoding": "identity", **self.address.headers}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.part.validator:
                headers["If-Range"] = self.part.validator
        timeout = self.options.timeout_seconds
        try:
            with get_session().stream("GET", self.address.url, headers=headers, timeout=timeout) as response:
                self._read(response, offset)
        except OfflineModeIsEnabled as error:
            raise DownloadError(f"{self.address.url}: HF_HUB_OFFLINE is set: unset it to download") from error
        except HTTPError as error:  # from httpx or httpx2, whichever huggingface_hub uses
            raise _TryAgainError(_in_words(error)) from error
        except OSError as error:
            raise DownloadError(f"{self.part.path}: cannot write: {error.strerror or error}") from error

    def check_whole(self) -> None:
        """Check the SHA-256 of the complete file. A file that was resumed gets another attempt."""
        if not self.sha256 or (digest := file_sha256(self.part.path)) == self.sha256:
            return
        self.part.clear()
        problem = f"needed SHA-256 {self.sha256}, got {digest}"
        if self.resumed:
            raise _TryAgainError(problem)
        raise DownloadError(f"{self.address.url}: {problem}; nothing was kept")

    def _offset(self) -> int:
        """Return the number of bytes to keep: 0 without a SHA-256 or validator, which would reveal another version."""
        known = self.sha256 or self.part.validator
        if not known or (self.size is not None and self.part.size > self.size):
            self.part.clear()
        return self.part.size

    def _read(self, response: Any, offset: int) -> None:
        self._note_stated_sha256(response)
        total, start = self._check(response, offset)
        if start == total:
            self.resumed = True
            return
        if not start:
            self.part.begin(_validator(response))
        self.resumed = bool(start)
        if self.size is None:
            self.size = total
        self._check_space(start)
        name = self.part.whole.name
        with self.part.open() as file, progress_bar(self.size, "B", start, self.options.progress, name) as bar:
            for chunk in response.iter_raw():
                file.write(chunk)
                self.received += len(chunk)
                bar.update(len(chunk))
                if self.size is not None and start + self.received > self.size:
                    self.part.clear()
                    raise DownloadError(f"{self.address.url}: needed {self.size:,} bytes, got more")
        if self.size is not None and self.part.size < self.size:
            raise _TryAgainError(f"cut off after {self.part.size:,} of {self.size:,} bytes")

    def _check(self, response: Any, offset: int) -> tuple[int | None, int]:
        """Return the size of the whole file (None if the response does not have it) and the offset of the body."""
        status, headers = response.status_code, response.headers
        if status == 416 and offset:
            if headers.get("content-range", "").endswith(f"/{offset}"):
                return offset, offset
            self.part.clear()
            raise _TryAgainError("the partial file does not match the file; starting over")
        if status in _BUSY:
            raise _TryAgainError(f"status {status}", _retry_after(headers.get("retry-after", "")))
        if status not in (200, 206):
            raise DownloadError(f"{self.address.url}: {self._refusal(status)}")
        if headers.get("content-type", "").startswith("text/html"):
            raise DownloadError(f"{self.address.url}: needed a file, got a web page, perhaps of a login or a proxy")
        if headers.get("content-encoding", "identity") != "identity":
            raise DownloadError(
                f"{self.address.url}: needed the raw file, got an encoding ({headers['content-encoding']})"
            )
        total, start = _extent(response, offset)
        if start != offset and status == 206:
            self.part.clear()
            raise _TryAgainError("the server sent a different range from the requested one; starting over")
        if self.size is not None and total is not None and total != self.size:
            raise DownloadError(f"{self.address.url}: needed {self.size:,} bytes, the server has {total:,}")
        if total is None and self.size is None and not self.sha256 and "transfer-encoding" not in headers:
            raise DownloadError(
                f"{self.address.url}: the size of the file is unknown, so a complete download cannot be recognized"
            )
        return total, start

    def _refusal(self, status: int) -> str:
        if status in (401, 403) and self.address.page:
            return (
                f"status {status}: login needed: accept the terms at {self.address.page}, then run `hf auth login` or "
                "set HF_TOKEN"
            )
        return "not found (status 404)" if status == 404 else f"status {status}"

    def _note_stated_sha256(self, response: Any) -> None:
        """Use the SHA-256 that the Hub reports for a large file, or compare it with the known one."""
        if not self.address.page:
            return
        for answer in (*response.history, response):
            stated = answer.headers.get("x-linked-etag", "").strip('"')
            if re.fullmatch(r"[0-9a-f]{64}", stated):
                if self.sha256 and stated != self.sha256:
                    raise DownloadError(f"{self.address.url}: needed SHA-256 {self.sha256}, the Hub has {stated}")
                self.sha256 = stated

    def _check_space(self, start: int) -> None:
        free = shutil.disk_usage(self.part.path.parent).free
        if self.size is not None and self.size - start > free:
            needed = format_bytes(self.size - start)
            raise DownloadError(f"{self.part.whole}: needs another {needed}, the disk has {format_bytes(free)} free")


def _extent(response: Any, offset: int) -> tuple[int | None, int]:
    headers = response.headers
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("content-range", ""))
        if not match:
            return None, -1
        return (int(match[2]) if match[2] != "*" else None), int(match[1])
    length = headers.get("content-length", "")
    return (int(length) if length.isdecimal() else None), 0


def _validator(response: Any) -> str:
    """Return what an If-Range header may contain: a strong ETag, else the date of the last change."""
    etag = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", "")


def _retry_after(text: str) -> float | None:
    """Return the seconds of a Retry-After header, which has a number or a date; None if it has neither."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
