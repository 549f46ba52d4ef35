"""Unpacking archives: what is in them, and what they must not do."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile

import pytest

from sfllava.benchmarks.downloads.addresses import DownloadError
from sfllava.benchmarks.downloads.unpack import Limits, unpack

VIDEOS = {"data/a.mp4": random.Random(1).randbytes(3_000), "data/deep/b.mp4": b"b" * 700, "readme.txt": b""}


def make_zip(path, files, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
        for name, to in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, to)
    return path


def make_tar(path, files, links=(), kind=tarfile.SYMTYPE, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, to in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, to
            archive.addfile(info)
    return path


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "root" / "videos"


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_files_and_folders_come_out_as_they_were(tmp_path, folder, suffix):
    path = tmp_path / f"videos.{suffix}"
    mode = "w:" + suffix.partition(".")[2]
    make_zip(path, VIDEOS.items()) if suffix == "zip" else make_tar(path, VIDEOS.items(), mode=mode)
    assert unpack(path, folder, progress=False) == {name: len(data) for name, data in VIDEOS.items()}
    assert contents(folder) == VIDEOS


def test_folders_of_the_archive_itself(tmp_path, folder):
    path = tmp_path / "videos.tar"
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / ".hidden").write_bytes(b"h")
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "in", "./")
    assert unpack(path, folder, progress=False) == {".hidden": 1}
    assert contents(folder) == {".hidden": b"h"} and (folder / "empty").is_dir()


OUT = ["../evil.mp4", "data/../../evil.mp4", "/evil.mp4", "//evil.mp4", "C:\\evil.mp4", "..\\evil.mp4", "data/..", ".."]


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", OUT)
def test_a_path_out_of_the_folder_stops_all_before_a_file_is_written(tmp_path, folder, make, name):
    path = make(tmp_path / "videos", [("data/a.mp4", b"a"), (name, b"evil")])
    before = {*tmp_path.rglob("*")}
    with pytest.raises(DownloadError) as caught:
        unpack(path, folder, progress=False)
    assert str(caught.value) == f"{path}: {name!r} leads out of the folder; nothing was unpacked"
    assert {*tmp_path.rglob("*")} == before


LINKS = [("data", "/etc"), ("data/a", "../../../etc/passwd"), ("data/a", "b.mp4")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link", LINKS)
def test_a_link_in_a_tar_is_refused(tmp_path, folder, link, kind):
    path = make_tar(tmp_path / "v.tar", [("data/b.mp4", b"b")], [link], kind)
    with pytest.raises(
        DownloadError, match=rf"v.tar: '{link[0]}' is a link to '{link[1]}' or a device; needed files and"
    ):
        unpack(path, folder, progress=False)
    assert not folder.exists()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_device_in_a_tar_is_refused(tmp_path, folder, kind):
    path = make_tar(tmp_path / "v.tar", [], [("data/null", "")], kind)
    with pytest.raises(DownloadError, match="'data/null' is a link or a device"):
        unpack(path, folder, progress=False)


def test_a_link_in_a_zip_is_refused(tmp_path, folder):
    path = make_zip(tmp_path / "v.zip", [], [("data", "/etc")])
    with pytest.raises(DownloadError, match="'data' is a link or a device; needed files and folders"):
        unpack(path, folder, progress=False)
    assert not folder.exists()


def test_a_link_that_is_in_the_folder_is_not_followed_out_of_it(tmp_path, folder):
    folder.mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (folder / "data").symlink_to(tmp_path / "outside")
    with pytest.raises(DownloadError, match=r"'data/a.mp4' would be written through a link out of"):
        unpack(make_zip(tmp_path / "v.zip", VIDEOS.items()), folder, progress=False)
    (folder / "data").unlink()
    (folder / "data").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (folder / "data" / "a.mp4").symlink_to(tmp_path / "precious")
    with pytest.raises(DownloadError, match="through a link"):
        unpack(tmp_path / "v.zip", folder, progress=False)
    assert (tmp_path / "precious").read_bytes() == b"precious" and not any((tmp_path / "outside").iterdir())


def test_the_folder_itself_may_be_a_link(tmp_path, folder):
    """To a disk with more space."""
    folder.parent.mkdir()
    (tmp_path / "disk").mkdir()
    folder.symlink_to(tmp_path / "disk")
    unpack(make_zip(tmp_path / "v.zip", VIDEOS.items()), folder, progress=False)
    assert contents(tmp_path / "disk") == VIDEOS


def test_unpacking_resumes_and_overwrites_nothing(tmp_path, folder):
    path = make_tar(tmp_path / "v.tar", VIDEOS.items())
    unpack(path, folder, progress=False)
    made = (folder / "data/a.mp4").stat().st_mtime_ns
    (folder / "data/deep/b.mp4").unlink()
    (folder / "data/deep/.part-b.mp4").write_bytes(b"half")  # left by a killed process
    unpack(path, folder, progress=False)
    assert contents(folder) == VIDEOS and (folder / "data/a.mp4").stat().st_mtime_ns == made
    for other in (b"own", b"!" + VIDEOS["data/a.mp4"][1:]):  # of another size, and of the same
        (folder / "data/a.mp4").write_bytes(other)
        with pytest.raises(DownloadError, match=r"data/a.mp4: a different file is there: move it away"):
            unpack(path, folder, progress=False)
        assert (folder / "data/a.mp4").read_bytes() == other


def test_an_archive_beyond_the_limits_is_refused(tmp_path, folder):
    bomb = make_zip(tmp_path / "bomb.zip", [("zeros", bytes(10_000_000))])
    limits = Limits(free_bytes=1000)
    with pytest.raises(DownloadError, match=r"bomb.zip: would unpack to 9.5 MiB; at most 0.5 MiB are allowed"):
        unpack(bomb, folder, limits, progress=False)
    many = make_zip(tmp_path / "many.zip", [(str(i), b"") for i in range(11)])
    with pytest.raises(DownloadError, match="has 11 files and folders; at most 10 are allowed"):
        unpack(many, folder, Limits(files=10), progress=False)
    assert not folder.exists()
    assert unpack(bomb, folder, progress=False) == {"zeros": 10_000_000}


def test_one_name_twice(tmp_path, folder):
    path = make_tar(tmp_path / "v.tar", [("a", b"1"), ("./a", b"2")])
    with pytest.raises(DownloadError, match=r"'./a' occurs twice; nothing was unpacked"):
        unpack(path, folder, progress=False)


def test_a_full_disk_is_an_error_before_unpacking(tmp_path, folder, monkeypatch):
    from shutil import _ntuple_diskusage  # type: ignore[attr-defined]

    path = make_zip(tmp_path / "v.zip", [("a", random.Random(2).randbytes(2**20))])
    monkeypatch.setattr("shutil.disk_usage", lambda path: _ntuple_diskusage(10**6, 10**6, 2**19))
    with pytest.raises(DownloadError, match=r"v.zip: unpacking needs 1.0 MiB, the disk of .* has 0.5 MiB free"):
        unpack(path, folder, progress=False)
    assert contents(folder) == {}


def damaged(tmp_path):
    data = random.Random(3).randbytes(100_000)
    zipped = make_zip(tmp_path / "a.zip", [("data/a.mp4", data)]).read_bytes()
    tarred = make_tar(tmp_path / "a.tar", [("data/a.mp4", data)]).read_bytes()
    squeezed = make_tar(tmp_path / "a.tgz", [("data/a.mp4", data)], mode="w:gz").read_bytes()
    broken = bytearray(zipped)
    broken[50_000] ^= 1
    yield "flipped.zip", bytes(broken)
    yield "cut.zip", zipped[:-50]
    yield "cut.tar", tarred[:50_000]
    yield "cut.tgz", squeezed[:50_000]
    yield "cut.tar.xz", make_tar(tmp_path / "a.xz", [("a", data)], mode="w:xz").read_bytes()[:50_000]
    yield "text.zip", b"this is no archive"
    yield "empty.zip", b""


def test_damaged_archives_are_one_line_and_no_half_file(tmp_path, folder):
    for name, data in damaged(tmp_path):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            DownloadError, match=rf"{name}: (cannot be unpacked: |needed a zip or tar|.*the archive has)"
        ) as it:
            unpack(tmp_path / name, folder, progress=False)
        assert "\n" not in str(it.value) and contents(folder) == {}


def test_an_encrypted_zip_is_refused(tmp_path, folder):
    path = make_zip(tmp_path / "v.zip", [("a.mp4", b"a" * 99)])
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the file's own header and in the list at the end
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DownloadError, match=r"v.zip: cannot be unpacked: .*(encrypted|password)"):
        unpack(path, folder, progress=False)
