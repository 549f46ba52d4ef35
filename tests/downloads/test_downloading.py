"""`sfllava download` with the published question files, from a server on loopback."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import warm
from conftest import ROOT
from file_server import Behaviour, FileServer
from filelock import FileLock

from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.base import benchmark_names, load_spec
from sfllava.benchmarks.downloads.addresses import resolve
from sfllava.benchmarks.downloads.downloading import Target, benchmarks_with_downloads, download, find_targets
from sfllava.benchmarks.downloads.fetch import FetchOptions
from sfllava.benchmarks.downloads.part import is_there
from sfllava.cli import main

EIGHT = ["activitynet", "egoschema", "intentqa", "msrvtt", "msvd", "nextqa", "tgif", "vcgbench"]
TGIF = "open_ended_qa/TGIF_FrameQA.csv"


def served_at(url, server):
    return urlsplit(resolve(url, server.url).url).path


@pytest.fixture
def server(shared, monkeypatch):
    """A server with every published question file that is at hand, at the path where its host has it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with FileServer() as running:
        for target in find_targets(benchmarks_with_downloads(), ["questions"]):
            path = shared / "qa" / target.file.path
            if path.exists():
                running.files[served_at(target.file.url, running)] = path.read_bytes()
        yield running


def run(capsys, *words):
    status = main(["download", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def in_process(*words, **environment):
    """Start a real, cold process: what the hub's library reads from the environment it reads at its import."""
    own = {k: v for k, v in os.environ.items() if k.lower() not in ("http_proxy", "https_proxy", "hf_token")}
    return subprocess.Popen(
        [sys.executable, "-m", "sfllava.cli", "download", *map(str, words)],
        env={**own, "HF_HUB_OFFLINE": "0", warm.COLD: "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# what is declared


def test_the_eight_declare_the_published_files(shared):
    """By size and SHA-256, and where `load_benchmark` looks for them."""
    found = benchmarks_with_downloads()
    assert set(EIGHT) <= set(found)
    for target in find_targets(found, ["questions"]):
        path = Path(target.file.path)
        # NExT-GQA's second split and spans are beside its question file
        places = [Path(place) for place in load_spec(target.benchmark).questions]
        assert any(path.is_relative_to(place) or path.parent == place.parent for place in places)
        if target.file.sha256:
            assert is_there(shared / "qa" / target.file.path, target.file.size, target.file.sha256)


def test_the_new_ones_declare_the_published_files(shared):
    found = benchmarks_with_downloads()
    for name in ("videomme", "longvideobench", "mlvu", "tempcompass", "nextgqa"):
        for file in found[name].questions:
            assert is_there(shared / "qa" / file.path, file.size, file.sha256) and file.size and file.sha256
    assert len(found["mvbench"].questions) == 20


def test_every_declared_file_has_a_safe_place_and_a_pinned_address():
    for target in find_targets(benchmarks_with_downloads(), ["questions", "videos"]):
        file = target.file
        for path in (file.path, file.unpack or "x"):
            assert not Path(path).is_absolute() and ".." not in Path(path).parts
        assert resolve(file.url).url.startswith("https://")
        assert len(file.sha256) in (0, 64)
        # a branch may be named only where the contents are known
        if "@main/" in file.url:
            assert file.sha256 and file.size, file.url
    for name, each in benchmarks_with_downloads().items():
        assert each.licence and each.videos.licence and each.videos.size and each.videos.place.startswith("http"), name


def test_the_page_in_the_docs_has_every_benchmark():
    page = (ROOT / "docs" / "how-to" / "downloads.md").read_text()
    rows = {row.split(" | ")[0].strip("| "): row for row in page.splitlines() if row.startswith("| ")}
    for name, each in benchmarks_with_downloads().items():
        fetched = rows[name].split(" | ")[2]
        assert fetched.startswith("yes" if each.videos.files else "no")
        assert each.videos.place in rows[name] or "see " in rows[name]
    published = {name for name in benchmark_names() if load_spec(name).question_count}
    assert (missing := published - {*benchmarks_with_downloads()} - {"shapesqa"})
    assert (
        f"except {' and '.join(f'`{name}`' for name in sorted(missing))}: you have to get their question files" in page
    )


# questions


def test_all_questions_in_one_command_are_what_the_benchmarks_read(server, tmp_path, capsys):
    root = tmp_path / "new" / "root"
    status, out, err = run(capsys, "questions", *EIGHT, "--root", root, "--source", server.url)
    assert (status, err) == (0, "")
    assert "11 fetched (6.5 MiB), 0 there already, 0 failed" in out and f"{TGIF}: fetched (1.4 MiB received)" in out
    for name in EIGHT:
        assert len(load_benchmark(name, root=root).questions) == load_spec(name).question_count
    # each benchmark's videos: where they are, how large, whether this command fetches them, what their licence allows
    assert "msvd: videos: 1.7 GB, 1,970 clips, https://www.cs.utexas.edu/" in out
    assert "tgif: videos: " in out and "(not fetched by this command); approved non-commercial research" in out
    before = len(server.requests)
    status, out, _ = run(capsys, "questions", *EIGHT, "--root", root, "--source", server.url)
    assert status == 0 and "0 fetched (0 bytes), 11 there already, 0 failed" in out and f"{TGIF}: there already" in out
    assert len(server.requests) == before
    assert not list(root.rglob("*.part*"))


def test_without_names_all_benchmarks_that_have_downloads(server, tmp_path, capsys):
    status, out, _ = run(capsys, "questions", "--root", tmp_path, "--dry-run")
    assert status == 0 and all(f"\n{name}: questions: " in out for name in EIGHT)
    assert not any(f"\n{name}: " in out for name in ("open", "choice", "shapesqa"))


def test_the_new_benchmarks_from_their_hubs(server, tmp_path):
    new = {name: each for name, each in benchmarks_with_downloads().items() if name not in EIGHT and name != "mvbench"}
    targets = find_targets(new, ["questions"])
    outcomes = download(targets, tmp_path, source=server.url, options=FetchOptions(progress=False))
    assert [outcome.note for outcome in outcomes] == [""] * len(targets) and len(targets) >= 12
    for target in targets:
        assert is_there(tmp_path / target.file.path, target.file.size, target.file.sha256)


def test_a_file_whose_sha256_is_not_known_says_so(server, tmp_path):
    target = Target("mvbench", "questions", benchmarks_with_downloads()["mvbench"].questions[0])
    server.files[served_at(target.file.url, server)] = b"[]"
    for state in ("fetched", "there"):
        (outcome,) = download([target], tmp_path, source=server.url, options=FetchOptions(progress=False))
        assert (outcome.state, outcome.note) == (state, "not checked: its SHA-256 is not known")


def test_a_file_that_was_checked_against_what_the_hub_states_says_so(server, tmp_path):
    target = Target("mvbench", "questions", benchmarks_with_downloads()["mvbench"].questions[0])
    url = served_at(target.file.url, server)
    server.files[url] = b"[]"
    server.behaviour[url] = Behaviour(headers={"X-Linked-Etag": f'"{hashlib.sha256(b"[]").hexdigest()}"'})
    for state, note in (
        ("fetched", "checked against the SHA-256 that the server states"),
        ("there", "not checked: its SHA-256 is not known"),
    ):
        (outcome,) = download([target], tmp_path, source=server.url, options=FetchOptions(progress=False))
        assert (outcome.state, outcome.note) == (state, note)


def test_one_that_fails_does_not_stop_the_others(server, tmp_path, capsys):
    gone = next(path for path in server.files if path.endswith("MSVD_QA.csv"))
    server.files[gone] = b"id,question\n"
    del server.files[next(path for path in server.files if path.endswith("Temporal_QA.csv"))]
    own = tmp_path / TGIF
    own.parent.mkdir()
    own.write_text("my own questions")
    status, out, err = run(capsys, "questions", *EIGHT, "--root", tmp_path, "--source", server.url)
    assert status == 1 and "8 fetched" in out and "3 failed: " in out
    assert "started again, the same command fetches what is missing" in out
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.startswith("sfllava: ") for line in lines)
    assert f"{TGIF}: another file is there: needed 1,474,941 bytes, it has 16: move it away" in err
    assert "MSVD_QA.csv: needed 518,766 bytes, the server has 12" in err
    assert "Temporal_QA.csv: not found (status 404)" in err
    assert own.read_text() == "my own questions" and not (tmp_path / "open_ended_qa/MSVD_QA.csv").exists()


def test_a_dry_run_lists_and_fetches_nothing(server, tmp_path, capsys):
    root = tmp_path / "root"
    status, out, _ = run(capsys, "questions", "msvd", "nextqa", "--videos", "--root", root, "--dry-run")
    assert status == 0 and server.requests == [] and not root.exists()
    assert "msvd  open_ended_qa/MSVD_QA.csv  0.5 MiB  to fetch\n  from https://raw.githubusercontent.com/imag" in out
    assert "nextqa  multiple_choice_qa/NExTQA/videos.zip  size unknown  to fetch\n  from https://huggingface.co/" in out
    assert "4 files, 1.4 MiB and 2 of unknown size" in out and "msvd: questions: BSD 3-Clause" in out
    (root / "open_ended_qa").mkdir(parents=True)
    (root / "open_ended_qa/MSVD_QA.csv").write_text("own")
    (root / "open_ended_qa/TGIF_FrameQA.csv.part").write_bytes(b"x" * 1234)
    status, out, _ = run(capsys, "questions", "msvd", "tgif", "--root", root, "--dry-run")
    assert status == 1 and "another file is there" in out and "1,234 bytes of it are there" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("questions", "msvdd", "--root", "r"), "no benchmark is called 'msvdd'"),
        (("questions", "open", "--root", "r"), "open: has nothing to download"),
        (("questions", "--root", "https://host/r"), "https://host/r: needed a folder on this machine, got a URL"),
        (("questions", "--root", "FILE"), "cannot be the folder to download into"),
        (("videos", "--root", "r"), "name the benchmarks (--dry-run lists all with their sizes)"),
        (("questions", "--root", "r", "--source", "mirror"), "--source mirror: needed an address such as"),
        (("questions", "--root", "r", "--tries", 0), "--tries of 1 or more and --timeout above 0 and finite, got 0"),
        (("questions", "--root", "r", "--timeout", "inf"), "and --timeout above 0 and finite, got 5 and inf"),
        (("questions", "--root", "r", "--timeout", "nan"), "and --timeout above 0 and finite, got 5 and nan"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    status, out, err = run(capsys, *words)
    assert status == 1 and out == "" and len(err.splitlines()) == 1 and message in err
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_a_second_download_into_one_folder_is_refused(server, tmp_path, capsys):
    with FileLock(tmp_path / ".sfllava-download.lock"):
        status, _, err = run(capsys, "questions", "msvd", "--root", tmp_path, "--source", server.url)
    assert status == 1 and f"{tmp_path}: another download is writing there" in err and server.requests == []


# what no request can be made of


def download_two(tmp_path, capsys, *words):
    """Two files, so that the first is seen not to stop the second."""
    status, out, err = run(capsys, "questions", "msvd", "tgif", "--root", tmp_path, *words)
    check_both_failed(status, out, err)
    return err


def check_both_failed(status, out, err):
    lines = err.splitlines()
    assert status == 1 and len(lines) == 2 and "0 fetched (0 bytes), 0 there already, 2 failed: " in out
    assert lines[0].startswith("sfllava: open_ended_qa/MSVD_QA.csv failed: http")
    assert lines[1].startswith("sfllava: open_ended_qa/TGIF_FrameQA.csv failed: http")


@pytest.mark.parametrize("host", ["münchen..de", "a" * 64 + ".invalid", "a..invalid"])
def test_a_host_that_no_request_can_be_made_of(server, tmp_path, capsys, host):
    err = download_two(tmp_path, capsys, "--source", f"http://{host}")
    assert "cannot be asked for, check its host and the proxy: " in err


def test_a_timeout_beyond_what_the_system_takes(server, tmp_path, capsys):
    assert "OverflowError" in download_two(tmp_path, capsys, "--source", server.url, "--timeout", "1e300")


def test_a_proxy_that_no_request_can_be_made_of(server, tmp_path):
    words = ("questions", "msvd", "tgif", "--root", tmp_path, "--source", "http://mirror.invalid")
    process = in_process(*words, HTTP_PROXY="http://proxy:80a", http_proxy="http://proxy:80a", NO_PROXY="", no_proxy="")
    out, err = process.communicate(timeout=60)
    check_both_failed(process.returncode, out, err)
    assert "check its host and the proxy: InvalidURL" in err


@pytest.mark.parametrize("token", ["hf_ü", "hf_\x7fsecret", "hf_one\ttwo"])
def test_a_token_that_no_header_can_have(server, tmp_path, capsys, monkeypatch, token):
    """It is said without the token; files of another host come."""
    monkeypatch.setenv("HF_TOKEN", token)
    files = [benchmarks_with_downloads()[name].questions[0] for name in ("mvbench", "msvd")]
    here = replace(files[1], url=f"{server.url}{served_at(files[1].url, server)}")
    targets = [Target("mvbench", "questions", files[0]), Target("msvd", "questions", here)]
    outcomes = download(targets, tmp_path, options=FetchOptions(tries=1, progress=False))
    assert [outcome.state for outcome in outcomes] == ["failed", "fetched"]
    assert outcomes[0].note.endswith(": needed a token of ASCII characters in HF_TOKEN or `hf auth login`")


# real processes


def test_killed_twice_and_resumed(server, tmp_path, shared):
    """SIGKILL in the middle of a slow download, two times: no byte that had arrived is asked for again."""
    url = next(path for path in server.files if path.endswith("TGIF_FrameQA.csv"))
    size = len(server.files[url])
    server.behaviour[url] = Behaviour(pause_seconds=0.02)
    part = tmp_path / f"{TGIF}.part"
    words = ("questions", "tgif", "--root", tmp_path, "--source", server.url)
    kept = [0]
    for enough in (300_000, 800_000):
        process = in_process(*words)
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > enough):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        kept.append(part.stat().st_size)
        assert not (tmp_path / TGIF).exists()
    process = in_process(*words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (tmp_path / TGIF).read_bytes() == (shared / "qa" / TGIF).read_bytes() and not part.exists()
    asked = [request.headers.get("range") for request in server.requests]
    assert asked == [None, f"bytes={kept[1]}-", f"bytes={kept[2]}-"] and 300_000 < kept[1] < kept[2] < size
    assert server.requests[2].sent == size - kept[2]
    assert "1 fetched" in out


def test_the_endpoint_of_the_environment_gets_no_token(server, tmp_path, clip):
    """HF_ENDPOINT, as mirrors of the hub ask for it; the zip is one of NExT-QA's videos in its layout."""
    file = load_spec("nextqa").downloads.videos.files[0]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.write(clip, "NExTVideo/4010069381.mp4")
    server.files[served_at(file.url, server)] = data.getvalue()
    process = in_process("videos", "nextqa", "--root", tmp_path, HF_ENDPOINT=server.url, HF_TOKEN="hf_mine")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "1 fetched" in out and "not checked: its SHA-256 is not known" in out
    assert server.requests[0].path.startswith("/datasets/lmms-lab/NExTQA/resolve/0d019debcbf8")
    assert len(server.requests) == 1 and "authorization" not in server.requests[0].headers
    assert (tmp_path / "multiple_choice_qa/NExTQA/video/NExTVideo/4010069381.mp4").read_bytes() == clip.read_bytes()


def test_behind_a_proxy(server, tmp_path):
    words = ("questions", "msvd", "--root", tmp_path, "--source", "http://mirror.invalid")
    process = in_process(*words, HTTP_PROXY=server.url, http_proxy=server.url, NO_PROXY="", no_proxy="")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert server.requests[0].path.startswith("http://mirror.invalid/imagegridworth/IG-VLM/")


# videos


@pytest.fixture
def videos(server, clip):
    """The archive of MSVD's videos, with two videos in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("bQJQGoJF7_k_162_169", "ACOmKiJDkA4_49_54"):
            archive.add(clip, f"YouTubeClips/{name}.avi")
    server.files["/users/ml/clamp/videoDescription/YouTubeClips.tar"] = data.getvalue()
    return server


def test_videos_are_fetched_unpacked_and_found(videos, tmp_path, capsys, clip):
    words = ("questions", "msvd", "--videos", "--root", tmp_path, "--source", videos.url)
    status, out, _ = run(capsys, *words)
    assert status == 0 and "2 fetched" in out
    found = load_benchmark("msvd", root=tmp_path).find_video("bQJQGoJF7_k_162_169")
    assert found.read_bytes() == clip.read_bytes()
    assert not list(tmp_path.rglob("*.tar"))
    # the archive is gone, and still known to be complete: until a video is
    before = len(videos.requests)
    status, out, _ = run(capsys, *words)
    assert status == 0 and "YouTubeClips.tar: there already" in out and len(videos.requests) == before
    found.unlink()
    status, out, _ = run(capsys, "videos", "msvd", "--root", tmp_path, "--source", videos.url)
    assert status == 0 and "1 fetched" in out and found.exists()


def test_a_video_of_ones_own_is_not_overwritten(videos, tmp_path, capsys):
    own = tmp_path / "video_qa/MSVD_Zero_Shot_QA/videos/YouTubeClips/ACOmKiJDkA4_49_54.avi"
    own.parent.mkdir(parents=True)
    own.write_text("own")
    words = ("videos", "msvd", "--root", tmp_path, "--source", videos.url)
    status, _, err = run(capsys, *words)
    assert status == 1 and f"{own}: another file is there: move it away" in err and own.read_text() == "own"
    own.unlink()
    asked = len(videos.requests)
    status, out, _ = run(capsys, *words)  # the archive is there: it is unpacked without being fetched again
    assert status == 0 and len(videos.requests) == asked and own.exists() and "1 fetched (0 bytes)" in out


@pytest.mark.parametrize("record", [None, '{"size": 5}', "not JSON"])
def test_an_archive_of_ones_own_is_neither_unpacked_nor_deleted(videos, tmp_path, capsys, record):
    """No SHA-256 of MSVD's archive is known: a file of that name may be anything. A record is of a file of its size."""
    own = tmp_path / "video_qa/MSVD_Zero_Shot_QA/YouTubeClips.tar"
    own.parent.mkdir(parents=True)
    with tarfile.open(own, "w") as archive:
        archive.addfile(tarfile.TarInfo("my own notes.txt"))
    data = own.read_bytes()
    if record:
        own.with_name("YouTubeClips.tar.fetched.json").write_text(record)
    words = ("videos", "msvd", "--root", tmp_path, "--source", videos.url)
    for more, lines in ((("--dry-run",), 0), ((), 1)):
        status, out, err = run(capsys, *words, *more)
        assert status == 1 and len(err.splitlines()) == lines
        assert f"{own}: this command did not download this file, and its SHA-256 is not known, so it is neither" in (
            out + err
        )
    assert own.read_bytes() == data and not list(tmp_path.rglob("*.txt")) and videos.requests == []
    own.unlink()
    status, out, _ = run(capsys, *words)
    assert status == 0 and "1 fetched" in out and len(list(tmp_path.rglob("*.avi"))) == 2
    assert not list(tmp_path.rglob("*.fetched.json"))


def test_an_archive_of_a_known_sha256_may_come_from_elsewhere(videos, tmp_path):
    data = videos.files["/users/ml/clamp/videoDescription/YouTubeClips.tar"]
    (file,) = load_spec("msvd").downloads.videos.files
    (tmp_path / file.path).parent.mkdir(parents=True)
    (tmp_path / file.path).write_bytes(data)
    target = Target("msvd", "videos", replace(file, sha256=hashlib.sha256(data).hexdigest()))
    (outcome,) = download([target], tmp_path, source=videos.url, options=FetchOptions(progress=False))
    assert (outcome.state, outcome.received, outcome.note) == ("fetched", 0, "") and videos.requests == []
    assert len(list(tmp_path.rglob("*.avi"))) == 2 and not (tmp_path / file.path).exists()


def test_an_archive_that_leads_out_of_the_root_writes_nothing(videos, tmp_path, capsys):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("MSRVTT/videos/all/video6513.mp4", b"video")
        archive.writestr("../../../../../evil.mp4", b"evil")
    videos.files["/~maxbain/frozen-in-time/data/MSRVTT.zip"] = data.getvalue()
    root = tmp_path / "a" / "b"
    status, _, err = run(capsys, "videos", "msrvtt", "msvd", "--root", root, "--source", videos.url)
    assert status == 1 and "MSRVTT.zip: '../../../../../evil.mp4' leads out of the folder; nothing was unpacked" in err
    assert not list(tmp_path.rglob("evil.mp4")) and not list(root.rglob("video6513.mp4"))
    assert len(list(root.rglob("*.avi"))) == 2  # the other benchmark's came


def test_videos_that_cannot_be_had_are_named(videos, tmp_path, capsys):
    status, out, _ = run(capsys, "videos", "tgif", "msvd", "--root", tmp_path, "--source", videos.url)
    assert status == 1 and "1 fetched" in out and "not fetched, since these videos need a login, a form or" in out
    assert "tgif: videos: URLs of 100,000 GIFs on Tumblr, https://github.com/raingo/TGIF-Release" in out


def test_one_archive_for_two_benchmarks_is_fetched_once():
    found = benchmarks_with_downloads()
    both = {name: found[name] for name in ("nextqa", "nextgqa")}
    assert len(find_targets(both, ["videos"])) == 1


def test_a_folder_of_the_root_may_be_a_link(server, tmp_path, capsys):
    """To another disk."""
    (tmp_path / "disk").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "open_ended_qa").symlink_to(tmp_path / "disk")
    assert run(capsys, "questions", "msvd", "--root", root, "--source", server.url)[0] == 0
    assert (tmp_path / "disk/MSVD_QA.csv").exists()
