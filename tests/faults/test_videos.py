"""Odd, damaged and fake videos: intact ones are read exactly, the others are reported, and no question is lost."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from corpus import make_corpus
from fault_table import record, some
from shell import sfllava
from source_videos import Item, encode, level

from sfllava.runs.run_folder import read_rows
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import sample_indices
from sfllava.sampler.video import Video, VideoError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pipes, links and file permissions")
TINY = ("--model", "tiny", "--frames", 4, "--aggregation", "slowfast-slow_2frms_spatial_1d_max_pool-fast_2x2")


@dataclass(frozen=True)
class Corpus:
    folder: Path
    items: list[Item]

    def of(self, *expects: str) -> list[Item]:
        return [item for item in self.items if item.expect in expects]

    def read(self, items: list[Item], decoder="auto") -> list[tuple[Item, Video | str]]:
        """Return each item with its video, or with the error message; anything else fails the test."""
        with DecodePool(2, seconds=60) as pool:
            futures = [pool.submit(self.folder / item.name, 50, None, decoder) for item in items]
            return [(item, self._result(item, future)) for item, future in zip(items, futures)]

    def _result(self, item: Item, future) -> Video | str:
        try:
            return future.result(timeout=600)
        except VideoError as error:
            assert names(str(error), self.folder / item.name), f"{item.name!r} is not named: {error}"
            return str(error)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    items = make_corpus(folder, some(110, 1000))
    yield Corpus(folder, items)
    for item in items:  # so that the temporary folder can be removed
        if item.name.endswith("secret.mp4"):
            (folder / item.name).chmod(0o600)


def names(message: str, path: Path) -> bool:
    """Return whether a message is one line that names the file."""
    return "\n" not in message and " ".join(str(path).split()) in message


def greys(frames: np.ndarray) -> np.ndarray:
    """Return the index in the source of each frame, estimated from its grey level, as a fractional number."""
    h, w = frames.shape[1:3]
    return (frames[:, h // 2 :, w // 2 :].mean((1, 2, 3)) - level(0)) / (level(1) - level(0))


def wrong(item: Item, video: Video) -> str:
    """Return what differs from the source; empty if nothing does."""
    truth = item.truth
    if (video.total, video.size) != (truth.frames, truth.size):
        return f"total and size {(video.total, video.size)}"
    upright = np.rot90(video.frames, truth.turns, axes=(1, 2))
    h, w = upright.shape[1:3]
    if video.indices.tolist() != sample_indices(truth.frames, 50).tolist():
        return f"indices {video.indices}"
    if np.abs(greys(upright) - truth.first - video.indices).max() > 0.4:
        return f"frames {greys(upright).round(1)}"
    if min(h, w) >= 16 and upright[:, : h // 8, : w // 8].mean() < 220:
        return "the white corner is not where it was"
    if truth.seconds and np.abs(video.pts_seconds - np.array(truth.seconds)[video.indices]).max() > 0.01:
        return f"seconds {video.pts_seconds}"
    return f"damage {video.damage}" if video.damage else ""


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_odd_but_intact_videos_are_read_exactly(corpus, decoder):
    """Sizes, codecs, containers, rates, rotation, edit lists, names: every frame at its index and time."""
    found = corpus.read(corpus.of("whole"), decoder)
    problems = {item.name: v if isinstance(v, str) else wrong(item, v) for item, v in found}
    problems = {name: problem for name, problem in problems.items() if problem}
    outcome = "each sampled frame has the source's index, orientation and time"
    record(f"odd but intact video ({decoder})", len(found), len(found) - len(problems), len(problems), outcome)
    assert not problems and len(found) > 20


def test_files_that_are_not_videos_are_errors(corpus):
    items = [i for i in corpus.of("error") if not (i.name.endswith("secret.mp4") and os.access(corpus.folder / i.name, os.R_OK))]  # fmt: skip
    found = corpus.read(items) + corpus.read(items, "pyav")
    taken = [item.name for item, video in found if isinstance(video, Video)]
    record(
        "file that is not a video", len(found), len(found) - len(taken), len(taken), "a one-line error that names it"
    )
    assert not taken and len(found) > 4
    images = corpus.of("other")  # an image is a video of one frame
    assert all(isinstance(v, Video) and v.total == 1 for _, v in corpus.read(images)) and images


def test_damaged_videos_end_in_frames_or_an_error(corpus):
    """Frames have the source's size; if a part is lost, the rest equals the source and the loss is reported.

    Damage that the decoder conceals cannot be detected, so after flipped bytes only the frame count is checked.
    """
    found = corpus.read(corpus.of("damaged"))
    errors = [item for item, video in found if isinstance(video, str)]
    videos = [(item, video) for item, video in found if isinstance(video, Video)]
    problems = {item.name: problem for item, video in videos if (problem := misleading(item, video))}
    noted = sum(bool(video.damage) for _, video in videos)
    whole = sum(not wrong(item, video) for item, video in videos)
    silent = len(videos) - noted - whole
    outcome = (
        f"{len(errors)} gave an error, {noted} had their damage reported, {whole} were read intact, "
        f"{silent} had damage that the decoder concealed, or lost a part that no header declares"
    )
    record("damaged video", len(found), len(found) - len(problems), len(problems), outcome)
    assert not problems and errors and noted and whole


def misleading(item: Item, video: Video) -> str:
    """Return what is wrong with the frames of a damaged video but not reported; empty if nothing is."""
    truth = item.truth
    if video.frames.shape != (len(video.indices), *truth.size, 3) and not video.damage and item.intact:
        return f"size {video.size}"
    if video.indices.tolist() != sample_indices(video.total, 50).tolist():
        return f"indices {video.indices}"
    if video.total > truth.frames:
        return f"{video.total} frames, where the source had {truth.frames}"
    if not item.intact:
        return ""
    # a GIF does not declare its number of frames, and its last remaining frame may be incomplete
    gif = item.name.endswith(".gif")
    shown, at = greys(video.frames), video.indices
    if gif:
        shown, at = shown[at < video.total - 1], at[at < video.total - 1]
    if np.abs(shown - at).max(initial=0) > 0.4:
        return f"frames {shown.round(1)}"
    return "" if video.total == truth.frames or video.damage or gif else f"{video.total} frames, and no damage reported"


def test_every_question_about_them_gives_a_row(corpus, tmp_path):
    """The command line checks and evaluates the corpus as a benchmark, without crashing, and counts every question."""
    absent = ["not there.mp4", "not\nthere\neither"]
    names_ = [item.name for item in corpus.items] + absent
    (corpus.folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"next to the others")
    with (tmp_path / "q.csv").open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file)
        write.writerow(["video_name", "question", "answer", "question_id"])
        for i, name in enumerate(names_):
            write.writerow([name, f'Which "grey", and\nwhy {{question}}? {i}', "grey", i])
    where = ("open", "--questions", tmp_path / "q.csv", "--videos", corpus.folder, "--follow-links")

    checked = sfllava("check", *where, cwd=tmp_path)
    assert (checked.returncode, checked.stderr.count("Traceback")) == (1, 0), checked.stderr[-2000:]
    missing = [line for line in checked.stdout.splitlines() if line.startswith("  missing: ")]
    unreadable = [line for line in checked.stdout.splitlines() if line.startswith("  unreadable: ")]
    readable = len(names_) - len(missing) - len(unreadable)
    assert f"found and readable {readable:,}, missing {len(missing)}, unreadable {len(unreadable)}" in checked.stdout
    assert len(checked.stdout.splitlines()) == 4 + len(missing) + len(unreadable), "one line per video"

    done = sfllava("evaluate", *where, *TINY, "--max-new-tokens", 4, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["video"]: row for row in read_rows(tmp_path / "run")}
    assert len(list(read_rows(tmp_path / "run"))) == len(rows) == len(names_) and set(rows) == set(names_)
    problems = {}
    for item in corpus.items:
        error, said = rows[item.name]["error"], rows[item.name]["prediction"]
        if (error is None) == (said is None) or (item.expect in ("whole", "other") and error):
            problems[item.name] = error
        elif error and not (" ".join(item.name.split()) in error and "\n" not in error):
            problems[item.name] = f"not named in one line: {error}"
    (scores,) = json.loads((tmp_path / "run" / "scores.json").read_text()).values()
    failed = sum(row["error"] is not None for row in rows.values())
    assert (scores["questions"], scores["failed"], scores["not_asked"]) == (len(names_), failed, 0)
    assert scores["answered"] == len(names_) - failed and sum(scores["reasons"].values()) == failed
    outcome = (
        f"one row per question: {len(names_) - failed} answered, {failed} failed with a reason; all in the denominator"
    )
    record("evaluate on odd and damaged videos", len(names_), len(names_) - len(problems), len(problems), outcome)
    assert not problems
    # exactly those videos failed that `check` could not read
    assert failed == len(missing) + len(unreadable)


def test_relative_names_are_not_addresses(tmp_path, monkeypatch):
    """A name relative to the current folder may look like a URL, an option or a pattern."""
    monkeypatch.chdir(tmp_path)
    wanted = ["12:30:05.mp4", "http:x.mp4", "concat:a|b.mp4", "file:y.mp4", "-i.mp4", "--help.mp4", "%03d.mp4", "pipe:0.mp4", "~.mp4"]  # fmt: skip
    for name in wanted:
        encode(tmp_path / name)
    found = [read_video(name, 50, decoder=decoder) for name in wanted for decoder in ("decord", "pyav")]
    assert [video.path for video in found] == [name for name in wanted for _ in range(2)]
    right = sum(video.total == 16 and bool(np.abs(greys(video.frames) - video.indices).max() < 0.4) for video in found)
    record("relative name that looks like a URL", len(found), right, len(found) - right, "the frames of that file")
    assert right == len(found)
