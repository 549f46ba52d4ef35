"""Download one file over HTTP from a real local server that misbehaves."""

from __future__ import annotations

import hashlib
import random
import time
from email.utils import formatdate

import pytest
from file_server import Behaviour, FileServer

from sfllava.benchmarks.downloads.addresses import Address, DownloadError, resolve
from sfllava.benchmarks.downloads.fetch import FetchOptions, fetch
from sfllava.benchmarks.downloads.part import Part, is_there

DATA = random.Random(0).randbytes(200_000)
SIZE = len(DATA)
SHA = hashlib.sha256(DATA).hexdigest()
PATH = "/data/questions.csv"


@pytest.fixture
def files(monkeypatch):
    """A running server with one file; offline mode is turned off for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with FileServer() as server:
        server.files[PATH] = DATA
        yield server


class Waits(list):
    """Records the waits between attempts, in seconds, without waiting."""

    def options(self, **more):
        return FetchOptions(tries=3, timeout_seconds=5, progress=False, sleep=self.append, **more)


@pytest.fixture
def waits():
    return Waits()


def get(files, tmp_path, waits, size=SIZE, sha256=SHA, page="", **more):
    part = Part(tmp_path / "questions.csv")
    received = fetch(Address(files.url + PATH, page=page), part, size, sha256, waits.options(**more))
    return received, part.whole.read_bytes()


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def leave_part(files, tmp_path, waits, size=50_000):
    """Leave a partial file, as after a lost connection."""
    behaviour = files.behaviour[PATH] = Behaviour(cuts=[size], statuses=[])
    part = Part(tmp_path / "questions.csv")
    with pytest.raises(DownloadError):
        fetch(
            Address(files.url + PATH), part, len(DATA), SHA, FetchOptions(tries=1, progress=False, sleep=waits.append)
        )
    assert part.size == size and not part.whole.exists()
    files.requests.clear()
    return behaviour


def test_a_whole_file(files, tmp_path, waits):
    assert get(files, tmp_path, waits) == (len(DATA), DATA)
    assert left(tmp_path) == ["questions.csv"] and waits == [] and len(files.requests) == 1
    assert is_there(tmp_path / "questions.csv", len(DATA), SHA)


def test_a_part_is_continued_where_it_ends(files, tmp_path, waits):
    leave_part(files, tmp_path, waits)
    assert get(files, tmp_path, waits) == (150_000, DATA)
    (request,) = files.requests
    assert request.headers["range"] == "bytes=50000-" and request.status == 206 and request.sent == 150_000
    assert request.headers["if-range"] == f'"{hashlib.md5(DATA).hexdigest()}"'
    assert left(tmp_path) == ["questions.csv"]


@pytest.mark.parametrize("sha256", [SHA, ""])
def test_a_body_that_is_cut_off_again_and_again(files, tmp_path, waits, sha256):
    """More interruptions than tries: an attempt with new data is not a failure."""
    files.behaviour[PATH] = Behaviour(cuts=[30_000, 40_000, 1, 20_000, 50_000, 10])
    assert get(files, tmp_path, waits, None, sha256) == (len(DATA), DATA)
    assert [request.sent for request in files.requests] == [30_000, 40_000, 1, 20_000, 50_000, 10, 59_989]


def test_a_server_without_ranges_starts_over(files, tmp_path, waits):
    behaviour = leave_part(files, tmp_path, waits)
    behaviour.ranges = False
    assert get(files, tmp_path, waits) == (len(DATA), DATA)
    assert files.requests[0].headers["range"] == "bytes=50000-" and files.requests[0].status == 200


def test_a_server_without_ranges_that_always_cuts_fails(files, tmp_path, waits):
    files.behaviour[PATH] = Behaviour(cuts=[50_000] * 9, ranges=False)
    with pytest.raises(DownloadError, match=r"questions.csv: .*\(tried 3 times\)"):
        get(files, tmp_path, waits)
    assert len(files.requests) == 3 and left(tmp_path) == ["questions.csv.part", "questions.csv.part.json"]


def test_another_version_of_the_file_is_not_joined_to_the_part(files, tmp_path, waits):
    """Detected by its ETag, without a SHA-256."""
    leave_part(files, tmp_path, waits)
    files.files[PATH] = new = DATA[::-1]
    assert get(files, tmp_path, waits, None, "") == (len(DATA), new)
    assert files.requests[0].headers["range"] and files.requests[0].status == 200


def test_without_an_etag_the_date_distinguishes_versions(files, tmp_path, waits):
    date = formatdate(1e9, usegmt=True)
    files.behaviour[PATH] = Behaviour(etag="", date=date, cuts=[70_000])
    assert get(files, tmp_path, waits, None, "") == (len(DATA), DATA)
    assert [request.headers.get("if-range") for request in files.requests] == [None, date]
    assert files.requests[1].sent == 130_000


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_partial_file_of_unknown_version_is_not_used(files, tmp_path, waits, etag):
    files.behaviour[PATH] = Behaviour(etag=etag, cuts=[70_000])
    assert get(files, tmp_path, waits, None, "") == (70_000 + len(DATA), DATA)
    assert "range" not in files.requests[1].headers


def test_a_part_of_something_else_is_replaced(files, tmp_path, waits):
    """The SHA-256 reveals it, and the next attempt starts over."""
    (tmp_path / "questions.csv.part").write_bytes(b"x" * 60_000)
    assert get(files, tmp_path, waits) == (140_000 + len(DATA), DATA)
    assert [request.status for request in files.requests] == [206, 200]


def test_a_range_other_than_the_requested_one_is_not_appended(files, tmp_path, waits):
    behaviour = leave_part(files, tmp_path, waits)
    behaviour.shift = 10
    assert get(files, tmp_path, waits, None, "") == (SIZE, DATA)
    assert [request.headers.get("range") for request in files.requests] == ["bytes=50000-", None]


def test_a_file_is_requested_without_encoding(files, tmp_path, waits):
    """A compressed transfer would have other sizes and ranges."""
    files.behaviour[PATH] = Behaviour(encode=True)
    assert get(files, tmp_path, waits) == (SIZE, DATA)
    files.behaviour[PATH] = Behaviour(headers={"Content-Encoding": "gzip"})  # a server that compresses anyway
    (tmp_path / "questions.csv").unlink()
    with pytest.raises(DownloadError, match=r"needed the raw file, got an encoding \(gzip\)"):
        get(files, tmp_path, waits)


def test_a_body_that_ends_early_without_a_stated_length(files, tmp_path, waits):
    files.behaviour[PATH] = Behaviour(length=False, cuts=[90_000, 0, 0, 0])
    with pytest.raises(DownloadError, match=r"cut off after 90,000 of 200,000 bytes \(tried 3 times\)"):
        get(files, tmp_path, waits)
    assert get(files, tmp_path, waits) == (110_000, DATA)


@pytest.mark.parametrize("size", [len(DATA), len(DATA) + 5])
def test_a_part_that_is_as_long_as_the_file_or_longer(files, tmp_path, waits, size):
    (tmp_path / "questions.csv.part").write_bytes((DATA + b"more!")[:size])
    received, data = get(files, tmp_path, waits)
    assert data == DATA and received == (0 if size == len(DATA) else len(DATA))
    assert len(files.requests) == (0 if size == len(DATA) else 1)


@pytest.mark.parametrize("size", [None, SIZE])
def test_the_server_confirms_a_complete_part_without_a_sha256(files, tmp_path, waits, size):
    leave_part(files, tmp_path, waits)
    (tmp_path / "questions.csv.part").write_bytes(DATA)
    assert get(files, tmp_path, waits, size, "") == (0, DATA)
    assert [request.status for request in files.requests] == [416]


def test_not_found_is_not_retried(files, tmp_path, waits):
    del files.files[PATH]
    with pytest.raises(DownloadError, match=rf"{files.url}{PATH}: not found \(status 404\)$"):
        get(files, tmp_path, waits)
    assert len(files.requests) == 1 and left(tmp_path) == []


def test_too_many_requests_waits_as_long_as_the_server_asks(files, tmp_path, waits):
    date = formatdate(time.time() + 30, usegmt=True)
    answers = [(429, {"Retry-After": "7"}), (503, {"Retry-After": date})]
    files.behaviour[PATH] = Behaviour(statuses=answers)
    assert get(files, tmp_path, waits) == (len(DATA), DATA)
    assert waits[0] == 7 and 25 < waits[1] <= 30


def test_too_many_requests_without_a_time_waits_longer_each_time(files, tmp_path, waits):
    files.behaviour[PATH] = Behaviour(statuses=[(429, {}), (500, {}), (502, {}), (429, {})])
    with pytest.raises(DownloadError, match=r"status 502 \(tried 3 times\)"):
        get(files, tmp_path, waits)
    assert waits == [1.0, 2.0]


def test_a_wait_of_an_hour_is_an_error(files, tmp_path, waits):
    files.behaviour[PATH] = Behaviour(statuses=[(429, {"Retry-After": "3600"})])
    with pytest.raises(DownloadError, match=r"status 429, and the server asks to wait 3,600 s: try again later"):
        get(files, tmp_path, waits)
    assert waits == []


def test_a_wait_takes_real_time(files, tmp_path):
    files.behaviour[PATH] = Behaviour(statuses=[(429, {"Retry-After": "1"})])
    start = time.monotonic()
    fetch(Address(files.url + PATH), Part(tmp_path / "q"), len(DATA), SHA, FetchOptions(progress=False))
    assert time.monotonic() - start >= 1


def test_another_size_is_refused_before_it_is_downloaded(files, tmp_path, waits):
    files.files[PATH] = DATA + b"!"
    with pytest.raises(DownloadError, match=r"needed 200,000 bytes, the server has 200,001"):
        get(files, tmp_path, waits)
    assert left(tmp_path) == []


def test_more_bytes_than_the_size_are_refused_without_a_content_length(files, tmp_path, waits):
    files.files[PATH] = DATA * 2
    files.behaviour[PATH] = Behaviour(length=False)
    with pytest.raises(DownloadError, match=r"needed 200,000 bytes, got more"):
        get(files, tmp_path, waits)
    assert left(tmp_path) == []


def test_another_sha256_is_refused_and_not_kept(files, tmp_path, waits):
    files.files[PATH] = wrong = b"!" + DATA[1:]
    digest = hashlib.sha256(wrong).hexdigest()
    with pytest.raises(DownloadError, match=rf"needed SHA-256 {SHA}, got {digest}; nothing was kept"):
        get(files, tmp_path, waits)
    assert left(tmp_path) == [] and len(files.requests) == 1


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_web_page_instead_of_the_file(files, tmp_path, waits, size):
    """As from a login page or a proxy, with status 200."""
    files.files[PATH] = b"<html>Please log in</html>"
    files.behaviour[PATH] = Behaviour(kind="text/html; charset=utf-8")
    with pytest.raises(DownloadError, match="needed a file, got a web page, perhaps of a login or a proxy"):
        get(files, tmp_path, waits, size)
    assert left(tmp_path) == []


def test_a_page_does_not_destroy_the_part(files, tmp_path, waits):
    behaviour = leave_part(files, tmp_path, waits)
    files.files[PATH], behaviour.kind = b"<html>" * 20_000, "text/html"
    with pytest.raises(DownloadError, match="web page"):
        get(files, tmp_path, waits)
    files.files[PATH], behaviour.kind = DATA, "text/csv"
    assert get(files, tmp_path, waits) == (150_000, DATA)


def test_a_file_of_unknown_length(files, tmp_path, waits):
    files.behaviour[PATH] = Behaviour(length=False)
    with pytest.raises(DownloadError, match="the size of the file is unknown"):
        get(files, tmp_path, waits, None, "")
    assert get(files, tmp_path, waits, None, SHA) == (len(DATA), DATA)


def test_no_server(files, tmp_path, waits):
    files.__exit__()
    with pytest.raises(DownloadError, match=r"questions.csv: ConnectError: .*\(tried 3 times\)"):
        get(files, tmp_path, waits)
    assert len(waits) == 2


def test_a_server_that_falls_silent(files, tmp_path, waits):
    files.behaviour[PATH] = Behaviour(pause_seconds=1.5, block=100_000)
    part = Part(tmp_path / "q")
    with pytest.raises(DownloadError, match="ReadTimeout"):
        fetch(Address(files.url + PATH), part, len(DATA), SHA, FetchOptions(1, 0.2, progress=False))
    assert part.size == 100_000


def test_offline_mode_is_named(files, tmp_path, waits, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set: unset it to download"):
        get(files, tmp_path, waits)
    assert files.requests == []


def test_a_full_disk_is_an_error_before_the_download(files, tmp_path, waits, monkeypatch):
    from shutil import _ntuple_diskusage  # type: ignore[attr-defined]

    monkeypatch.setattr("shutil.disk_usage", lambda path: _ntuple_diskusage(10**6, 10**6, 100_000))
    with pytest.raises(DownloadError, match=r"questions.csv: needs another 0.2 MiB, the disk has 0.1 MiB free"):
        get(files, tmp_path, waits)


# files on the Hub


def test_the_sha256_that_the_hub_reports_is_checked(files, tmp_path, waits):
    """In the header of the redirect to large files."""
    files.files["/elsewhere"] = DATA
    files.behaviour[PATH] = Behaviour(redirect="/elsewhere", headers={"X-Linked-Etag": f'"{SHA}"'})
    page = f"{files.url}/datasets/o/n"
    assert get(files, tmp_path, waits, None, "", page) == (len(DATA), DATA)
    (tmp_path / "questions.csv").unlink()
    files.files["/elsewhere"] = DATA[:-1] + b"!"
    with pytest.raises(DownloadError, match=f"needed SHA-256 {SHA}, got"):
        get(files, tmp_path, waits, None, "", page)
    with pytest.raises(DownloadError, match=f"needed SHA-256 {'0' * 64}, the Hub has {SHA}"):
        get(files, tmp_path, waits, None, "0" * 64, page)


@pytest.mark.parametrize("status", [401, 403])
def test_a_data_set_that_needs_a_login_says_where(files, tmp_path, waits, status):
    files.behaviour[PATH] = Behaviour(statuses=[(status, {})])
    with pytest.raises(DownloadError, match=rf"status {status}: login needed: accept the terms at https://hub/d, then"):
        get(files, tmp_path, waits, page="https://hub/d")


def test_the_token_goes_to_the_hub_alone(files, tmp_path, monkeypatch):
    """Neither to a mirror nor to the host of a large file."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    url = "hf://datasets/owner/name@abc/folder/a b.parquet"
    address = resolve(url)
    assert address.url == "https://huggingface.co/datasets/owner/name/resolve/abc/folder/a%20b.parquet"
    assert address.headers == {"Authorization": "Bearer hf_secret"} and "secret" not in repr(address)
    assert address.page == "https://huggingface.co/datasets/owner/name"
    assert resolve(url, "http://mirror/hub/").headers == {}
    assert resolve("https://raw.githubusercontent.com/a/b/c/d.csv").headers == {}
    with FileServer() as elsewhere:
        elsewhere.files["/blob"] = DATA
        files.behaviour[PATH] = Behaviour(redirect=f"http://localhost:{elsewhere.url.rpartition(':')[2]}/blob")
        own = Address(files.url + PATH, address.headers, address.page)
        fetch(own, Part(tmp_path / "q"), len(DATA), SHA, FetchOptions(progress=False))
        assert files.requests[0].headers["authorization"] == "Bearer hf_secret"
        assert "authorization" not in elsewhere.requests[0].headers


def test_a_mirror_replaces_the_host():
    url = "https://raw.githubusercontent.com/a/b/c/d.csv"
    assert resolve(url, "http://127.0.0.1:80/mirror/").url == "http://127.0.0.1:80/mirror/a/b/c/d.csv"
    hub = resolve("hf://datasets/o/n@main/x.json", "https://mirror.example")
    assert hub.url == "https://mirror.example/datasets/o/n/resolve/main/x.json"
    for bad in ("mirror", "ftp://host", "http://", "http://host?a=b", "http://host:99999", "http://[::1"):
        with pytest.raises(DownloadError, match=r"--source .*: needed an address such as https://mirror.example/path"):
            resolve(url, bad)


# existing files


def test_another_file_at_the_place_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "q.csv"
    assert not is_there(path, 3, "")
    path.write_bytes(b"own")
    assert is_there(path, 3, hashlib.sha256(b"own").hexdigest()) and is_there(path, None, "")
    with pytest.raises(
        DownloadError, match=rf"{path}: is a different file: needed 1,004 bytes, it has 3: move it away"
    ):
        is_there(path, 1004, "")
    with pytest.raises(DownloadError, match=r"needed SHA-256 0+, it has [0-9a-f]{64}: move it away"):
        is_there(path, 3, "0" * 64)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for other in (tmp_path, tmp_path / "dangling"):
        with pytest.raises(DownloadError, match="a folder or a broken link"):
            is_there(other, None, "")


def test_a_file_that_appears_during_the_download_is_left(files, tmp_path, waits):
    files.behaviour[PATH] = Behaviour(statuses=[(429, {})])
    own = tmp_path / "questions.csv"
    options = FetchOptions(progress=False, sleep=lambda seconds: own.write_bytes(b"own") and None)
    with pytest.raises(DownloadError, match="appeared during the download"):
        fetch(Address(files.url + PATH), Part(own), len(DATA), SHA, options)
    assert own.read_bytes() == b"own"


def test_a_link_in_the_place_of_the_part_is_not_written_through(files, tmp_path, waits):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "questions.csv.part").symlink_to(other)
    with pytest.raises(DownloadError, match=r"questions.csv.part: is a link"):
        fetch(Address(files.url + PATH), Part(tmp_path / "questions.csv"), len(DATA), SHA, waits.options())
    assert other.read_bytes() == b"precious"
