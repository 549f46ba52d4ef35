"""Finding videos by the names in a question file, also behind links."""

from __future__ import annotations

import shutil

import pytest
from shell import sfllava

from sfllava.benchmarks import BenchmarkError, LinkError, load_benchmark
from sfllava.runs.check import check
from sfllava.types import SfllavaError

OPEN = "video_name,question,answer,question_id\n"


def test_finding_videos(videos, tmp_path):
    folder = tmp_path / "videos"
    for place in (
        "plain.mp4",
        "0101/nested.mp4",
        "v_prefixed.mkv",
        "deep/er/UPPER.MP4",
        "clip.v2.mp4",
        "ütf/名前.mp4",
        "two.avi",
        "two.mp4",
        "x/same.mp4",
        "y/same.mp4",
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / "a.mp4", folder / place)
    (folder / "frames_of_it").mkdir()
    (folder / "frames_of_it" / "0.jpg").touch()
    (folder / "loop").symlink_to(folder)
    (tmp_path / "q.csv").write_text(OPEN + "plain,q,x,1\n")
    benchmark = load_benchmark("open", tmp_path / "q.csv", folder)
    for name, wanted in {
        "plain": "plain.mp4",
        "plain.mp4": "plain.mp4",
        "plain.avi": "plain.mp4",
        "nested": "0101/nested.mp4",
        "0101/nested": "0101/nested.mp4",
        "prefixed": "v_prefixed.mkv",
        "v_prefixed": "v_prefixed.mkv",
        "v_plain": "plain.mp4",
        "UPPER": "deep/er/UPPER.MP4",
        "clip.v2": "clip.v2.mp4",
        "名前": "ütf/名前.mp4",
        "frames_of_it": "frames_of_it",
        "two": "two.mp4",
        "two.avi": "two.avi",
    }.items():
        assert benchmark.find_video(name) == folder / wanted, name
    assert benchmark.find_video("y/same") == folder / "y/same.mp4"
    with pytest.raises(BenchmarkError, match=r"same: more than one such video: .*x/same\.mp4, .*y/same\.mp4"):
        benchmark.find_video("same")
    with pytest.raises(BenchmarkError, match="absent: no such video under"):
        benchmark.find_video("absent")


@pytest.fixture
def linked(videos, tmp_path):
    """A folder of videos that is a link, with a link inside to each kind of thing outside, and one that stays in."""
    outside, inside = tmp_path / "outside", tmp_path / "disk"
    for folder in (outside / "frames", inside / "half"):
        folder.mkdir(parents=True)
    shutil.copy(videos / "a.mp4", outside / "secret.mp4")
    shutil.copy(videos / "b.mp4", inside / "b.mp4")
    (outside / "frames" / "0.jpg").touch()
    for link, to in {
        "file.mp4": outside / "secret.mp4",
        "part": outside,
        "half/0.jpg": outside / "frames" / "0.jpg",
        "again.mp4": inside / "b.mp4",
    }.items():
        (inside / link).symlink_to(to)
    (tmp_path / "videos").symlink_to(inside)
    (tmp_path / "q.csv").write_text(OPEN + "b,q,x,1\nagain,q,x,1\nsecret,q,x,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "link", "found"),
    [
        ("file", "file.mp4", "file.mp4"),
        ("secret", "part", "part/secret.mp4"),
        ("frames", "part", "part/frames"),
        ("half", "half/0.jpg", "half"),
    ],
)
def test_links_out_of_the_folder_of_videos_are_followed_when_told(linked, name, link, found):
    where = (linked / "q.csv", linked / "videos")
    benchmark = load_benchmark("open", *where)
    with pytest.raises(SfllavaError, match=rf"{name}: .*/videos/{link} leads out of .* to .*/outside.* --follow-links"):
        benchmark.find_video(name)
    assert benchmark.find_video("b").name == "b.mp4" and benchmark.find_video("again").name == "again.mp4"
    follows = load_benchmark("open", *where, follow_links=True)
    assert follows.find_video(name) == linked / "videos" / found


def test_the_command_line_says_how_links_are_followed(linked):
    where = ("check", "open", "--questions", linked / "q.csv", "--videos", linked / "videos")
    refused = sfllava(*where)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "videos/part leads out of the folder of videos" in refused.stdout and "--follow-links" in refused.stdout
    followed = sfllava(*where, "--follow-links")
    assert followed.returncode == 0 and "found and readable 3, missing 0" in followed.stdout


def test_a_link_out_of_the_folder_stops_a_run_before_it_begins(linked):
    out = linked / "run"
    where = ("evaluate", "open", "--questions", linked / "q.csv", "--videos", linked / "videos", "--out", out)
    refused = sfllava(*where, "--model", "tiny")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and not out.exists()
    assert "videos/part leads out of the folder of videos" in refused.stderr and "--follow-links" in refused.stderr


def test_check_lists_what_is_missing_and_unreadable(videos, tmp_path):
    folder = shutil.copytree(videos, tmp_path / "videos")
    (folder / "bad.mp4").write_text("no video")
    (tmp_path / "q.csv").write_text(OPEN + "".join(f"{name},q,x,1\n" for name in ("a", "bad", "gone", "b")))
    found = check(load_benchmark("open", tmp_path / "q.csv", folder), progress=False)
    assert not found.ok and found.missing == ["gone"] and len(found.unreadable) == 1
    assert "found and readable 2, missing 1, unreadable 1" in str(found)
    assert "missing: gone" in str(found) and "bad.mp4: not a readable video" in str(found)


def test_of_many_equal_names_four_are_listed(tmp_path):
    for i in range(6):
        (tmp_path / "videos" / f"{i}").mkdir(parents=True)
        (tmp_path / "videos" / f"{i}" / "same.mp4").touch()
    (tmp_path / "q.csv").write_text(OPEN + "same,q,x,1\n")
    with pytest.raises(BenchmarkError) as error:
        load_benchmark("open", tmp_path / "q.csv", tmp_path / "videos").find_video("same")
    assert str(error.value).count("same.mp4") == 4


def test_a_file_is_preferred_to_a_folder_of_images_of_its_name(tmp_path):
    folder = tmp_path / "videos"
    (folder / "a").mkdir(parents=True)
    for name in ("a/0.jpg", "0.jpg", "a.mp4"):
        (folder / name).touch()
    (tmp_path / "q.csv").write_text(OPEN + "a,q,x,1\n")
    benchmark = load_benchmark("open", tmp_path / "q.csv", folder)
    assert benchmark.find_video("a") == folder / "a.mp4"
    with pytest.raises(BenchmarkError, match="videos: no such video under"):
        benchmark.find_video("videos")  # images of the folder itself are not a video


def test_where_a_name_is_behind_an_unsearched_link_is_said(linked):
    with pytest.raises(LinkError, match=f"nowhere: .*part leads out of the folder of videos, to {linked / 'outside'};"):
        load_benchmark("open", linked / "q.csv", linked / "videos").find_video("nowhere")
    with pytest.raises(BenchmarkError, match="nowhere: no such video"):
        load_benchmark("open", linked / "q.csv", linked / "videos", follow_links=True).find_video("nowhere")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Plain.MP4", "plain.mp4"),
        ("V_PLAIN", "plain.mp4"),
        ("frames", "deep/er/FRAMES"),
        ("er/Upper", "deep/er/UPPER.MP4"),
        ("deep/er/upper.avi", "deep/er/UPPER.MP4"),
        ("Both", "both.mp4"),
    ],
)
def test_other_cases_and_nested_folders(videos, tmp_path, name, found):
    folder = tmp_path / "videos"
    for place in ("plain.mp4", "deep/er/UPPER.MP4", "both.mp4", "both.mkv", "deep/er/FRAMES/0.jpg"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / "a.mp4", folder / place)
    (tmp_path / "q.csv").write_text(OPEN + "plain,q,x,1\n")
    assert load_benchmark("open", tmp_path / "q.csv", folder).find_video(name) == folder / found


def test_an_exact_name_takes_precedence_and_two_other_cases_are_ambiguous(videos, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "A.mp4"):
        shutil.copy(videos / "a.mp4", folder / name)
    if len(list(folder.iterdir())) < 2:
        pytest.skip("a case-insensitive file system")
    shutil.copy(videos / "a.mp4", folder / "bB.mp4")
    shutil.copy(videos / "a.mp4", folder / "Bb.mkv")
    (tmp_path / "q.csv").write_text(OPEN + "A,q,x,1\nbb,q,x,2\n")
    benchmark = load_benchmark("open", tmp_path / "q.csv", folder)
    assert benchmark.find_video("A") == folder / "A.mp4" and benchmark.find_video("a") == folder / "a.mp4"
    with pytest.raises(BenchmarkError, match="bb: more than one such video"):
        benchmark.find_video("bb")
    found = check(benchmark, progress=False)
    assert not found.missing and "unreadable: bb: more than one such video" in str(found)


def test_a_folder_in_a_user_s_name_is_kept(videos, tmp_path):
    """With two cameras, the other camera's video is another video."""
    (tmp_path / "videos" / "camera2").mkdir(parents=True)
    shutil.copy(videos / "a.mp4", tmp_path / "videos/camera2/clip.mp4")
    (tmp_path / "q.csv").write_text(OPEN + "camera1/clip,q,x,1\n")
    with pytest.raises(BenchmarkError, match="camera1/clip: no such video"):
        load_benchmark("open", tmp_path / "q.csv", tmp_path / "videos").find_video("camera1/clip")
