"""One file over HTTP: goes on with a part, tries again where that helps, checks size and SHA-256."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sfllava.benchmarks.downloads.addresses import Address, DownloadError
from sfllava.benchmarks.downloads.answers import (
    can_be_sent,
    is_other_version,
    read_extent,
    read_retry_after,
    read_validator,
)
from sfllava.benchmarks.downloads.part import Part
from sfllava.display.progress import progress_bar
from sfllava.files import file_sha256, format_bytes

_BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be another one in a moment
_LONGEST_WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class FetchOptions:
    """How a file is fetched.

    Args:
        tries: the file has failed after so many attempts in a row that bring nothing new, or after so many starts from
            the beginning.
        timeout_seconds: the longest silence of the server.
        first_wait_seconds: the wait before the second attempt, doubled each time, where the server names none.
        progress: show a progress bar.
        sleep: what waits, in seconds.
    """

    tries: int = 5
    timeout_seconds: float = 60.0
    first_wait_seconds: float = 1.0
    progress: bool = True
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Args:
        received: the bytes that were received for it.
        sha256: its SHA-256, if it was checked: the one that was known, or the one that the hub states; else empty.
    """

    received: int
    sha256: str


class _TryAgainError(Exception):
    """An attempt failed in a way that may pass. `wait_seconds` is what the server asked for."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def fetch(address: Address, part: Part, size: int | None, sha256: str, options: FetchOptions) -> Fetched:
    """Download a file to its place; what an earlier call has left of it is not asked for again.

    Args:
        address: what is asked of the server.
        part: the part that has arrived; at the end it is the whole file.
        size: the file's size in bytes, None if unknown.
        sha256: the file's SHA-256, empty if unknown; then the one that the hub states counts, if it does.
        options: how it is fetched.

    Returns:
        What this call received.

    Raises:
        DownloadError: the file cannot be had, or is not what it must be. What has arrived stays for the next call,
            unless it is wrong.
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
            # an attempt that brought something new is no failure: servers cut long transfers off, again and again
            failures = 0 if part.size > before else failures + 1
            # but each start from the beginning counts: with it, bytes may be new for ever
            if max(failures, part.restarts) >= options.tries:
                how, count = ("tried", failures) if failures >= options.tries else ("started over", part.restarts)
                times = "once" if count == 1 else f"{count} times"
                raise DownloadError(f"{address.url}: {problem} ({how} {times})") from problem
            _wait(address, problem, max(failures, part.restarts), options)
        finally:
            received += attempt.received
    part.finish()
    return Fetched(received, attempt.sha256)


def _wait(address: Address, problem: _TryAgainError, failures: int, options: FetchOptions) -> None:
    doubled = options.first_wait_seconds * 2 ** min(max(failures - 1, 0), 20)
    wait = doubled if problem.wait_seconds is None else problem.wait_seconds
    if problem.wait_seconds is not None and wait > _LONGEST_WAIT_SECONDS:
        raise DownloadError(f"{address.url}: {problem}, and asks to wait {wait:,.0f} s: try again later")
    options.sleep(min(wait, _LONGEST_WAIT_SECONDS))


class _Attempt:
    """One request, and what is known of the file by its answer."""

    def __init__(self, address: Address, part: Part, size: int | None, sha256: str, options: FetchOptions) -> None:
        self.address, self.part, self.options = address, part, options
        self.size, self.sha256 = size, sha256
        self.resumed, self.received = False, 0

    def run(self) -> None:
        """Ask for what is missing, and append it to the part."""
        offset = self._offset()
        if self.sha256 and offset == self.size:  # without a SHA-256 the server is asked whether this is the file
            self.resumed = True
            return
        # Hub files and others alike go through the hub's session: it is there with transformers, honours
        # HTTP(S)_PROXY and NO_PROXY, and keeps the token from other hosts that it is redirected to.
        from huggingface_hub.errors import HTTPError

        headers = {"Accept-Encoding": "identity", **self.address.headers}
        if not all(map(can_be_sent, headers.values())):  # the value itself is secret
            raise DownloadError(
                f"{self.address.url}: needed a token of ASCII characters in HF_TOKEN or `hf auth login`"
            )
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.part.validator:
                headers["If-Range"] = self.part.validator
        try:
            with ExitStack() as stack:
                self._read(self._ask(headers, stack), offset)
        except HTTPError as error:  # of httpx or httpx2, whichever the hub's library uses
            raise _TryAgainError(_in_words(error)) from error
        except OSError as error:
            raise DownloadError(f"{self.part.path}: cannot write: {error.strerror or error}") from error

    def _ask(self, headers: dict[str, str], stack: ExitStack) -> Any:
        """Return the response, which the stack closes; it has no body yet."""
        from huggingface_hub import get_session
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

        url = self.address.url
        try:
            return stack.enter_context(
                get_session().stream("GET", url, headers=headers, timeout=self.options.timeout_seconds)
            )
        except OfflineModeIsEnabled as error:
            raise DownloadError(f"{url}: HF_HUB_OFFLINE is set: unset it to download") from error
        except HTTPError:
            raise
        except Exception as error:  # a host, proxy or certificate file that cannot be used raises errors of many kinds
            raise DownloadError(
                f"{url}: cannot be asked for, check its host and the proxy: {_in_words(error)}"
            ) from error

    def check_whole(self) -> None:
        """Check the SHA-256 of the whole file. One that was put together of parts gets another attempt."""
        if not self.sha256 or (digest := file_sha256(self.part.path)) == self.sha256:
            return
        self.part.clear()
        problem = f"needed SHA-256 {self.sha256}, got {digest}"
        if self.resumed:
            raise _TryAgainError(problem)
        raise DownloadError(f"{self.address.url}: {problem}; nothing was kept")

    def _offset(self) -> int:
        """Bytes that need not be asked for again. Without a SHA-256 or a validator nobody could tell two versions."""
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
            self.part.begin(read_validator(response.headers))
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
                    raise DownloadError(f"{self.address.url}: needed {self.size:,} bytes, more arrived")
        if self.size is not None and self.part.size < self.size:
            raise _TryAgainError(f"cut off after {self.part.size:,} of {self.size:,} bytes")

    def _check(self, response: Any, offset: int) -> tuple[int | None, int]:
        """Return the size of the whole file by the answer, None if it does not say, and where its body begins."""
        status, headers = response.status_code, response.headers
        if status == 416 and offset:
            if headers.get("content-range", "").endswith(f"/{offset}"):
                return offset, offset
            self.part.clear()
            raise _TryAgainError("the part does not fit the file; starting over")
        if status in _BUSY:
            raise _TryAgainError(f"status {status}", read_retry_after(headers))
        if status not in (200, 206):
            raise DownloadError(f"{self.address.url}: {self._refusal(status)}")
        if headers.get("content-type", "").startswith("text/html"):
            raise DownloadError(f"{self.address.url}: needed a file, got a web page, as from a login or a proxy")
        if headers.get("content-encoding", "identity") != "identity":
            raise DownloadError(
                f"{self.address.url}: needed it as it is, got it encoded ({headers['content-encoding']})"
            )
        total, start = read_extent(status, headers)
        if start != offset and status == 206:
            self.part.clear()
            raise _TryAgainError("the server sent another range than was asked for; starting over")
        if status == 206 and is_other_version(headers, self.part.validator):
            self.part.clear()
            raise _TryAgainError("the server has another version of the file; starting over")
        if self.size is not None and total is not None and total != self.size:
            raise DownloadError(f"{self.address.url}: needed {self.size:,} bytes, the server has {total:,}")
        if total is None and self.size is None and not self.sha256 and "transfer-encoding" not in headers:
            raise DownloadError(
                f"{self.address.url}: nothing says how long the file is, so no one can tell if it is whole"
            )
        return total, start

    def _refusal(self, status: int) -> str:
        if status in (401, 403) and self.address.is_mirror:
            return (
                f"status {status}: needs a login, and this mirror gets no token: download from the hub, "
                "without --source and HF_ENDPOINT"
            )
        if status in (401, 403) and self.address.page:
            return (
                f"status {status}: needs a login: accept the terms at {self.address.page}, then run `hf auth login` or "
                "set HF_TOKEN"
            )
        return "not found (status 404)" if status == 404 else f"status {status}"

    def _note_stated_sha256(self, response: Any) -> None:
        """Take the SHA-256 that the hub states for a large file, or compare it with the one that is known."""
        if not self.address.page:
            return
        for answer in (*response.history, response):
            stated = answer.headers.get("x-linked-etag", "").strip('"')
            if re.fullmatch(r"[0-9a-f]{64}", stated):
                if self.sha256 and stated != self.sha256:
                    raise DownloadError(f"{self.address.url}: needed SHA-256 {self.sha256}, the hub has {stated}")
                self.sha256 = stated

    def _check_space(self, start: int) -> None:
        free = shutil.disk_usage(self.part.path.parent).free
        if self.size is not None and self.size - start > free:
            needed = format_bytes(self.size - start)
            raise DownloadError(f"{self.part.whole}: needs {needed} more, the disk has {format_bytes(free)} free")


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
