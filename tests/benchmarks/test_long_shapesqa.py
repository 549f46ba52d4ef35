"""The long family of ShapesQA: evenly distributed answers, and spans in which the videos show what is asked about."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from sfllava import cli
from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import long, write_long_shapesqa
from sfllava.benchmarks.shapesqa.scenes import COLOURS, DIGITS, PLACES, Thing, draw_thing
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import Sample
from sfllava.types import SfllavaError

VIDEOS = 10
FORMS = ("shapesqa_open.csv", "shapesqa_choice.csv", "shapesqa_spans.json")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_long_shapesqa(tmp_path_factory.mktemp("long"), VIDEOS, seed=3)


def table(root, form):
    with (root / f"shapesqa_{form}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def find_sign(frame, colour):
    """The place and the digit of the sign of a colour in a frame, None if there is none."""
    close = np.abs(frame.astype(int) - COLOURS[colour]).max(-1) < 40
    if close.sum() < 700:  # a mark has 100 pixels
        return None
    y, x = (int(np.median(axis)) for axis in np.nonzero(close))
    board = frame[max(0, y - 22) : y + 22, max(0, x - 22) : x + 22].astype(int)
    found = {}
    for digit in DIGITS:
        plate = np.full((14, 14, 3), 128, np.uint8)
        draw_thing(plate, Thing("sign", digit, (0, 0)))
        wanted = plate[:12, :10].astype(int)
        windows = np.lib.stride_tricks.sliding_window_view(board, (12, 10, 3))[:, :, 0]
        found[digit] = np.abs(windows - wanted).mean((2, 3, 4)).min()
    place = f"{'top' if y < 56 else 'bottom'} {'left' if x < 56 else 'right'}"
    return place, min(found, key=found.get)


def test_the_same_arguments_give_the_same(root, tmp_path):
    again = write_long_shapesqa(tmp_path / "again", VIDEOS, seed=3)
    names = [*FORMS, *(f"videos/{path.name}" for path in (root / "videos").iterdir())]
    assert len(names) == len(FORMS) + VIDEOS
    assert all((again / name).read_bytes() == (root / name).read_bytes() for name in names)
    text = b"".join((root / name).read_bytes() for name in FORMS[:2])
    assert hashlib.sha256(text).hexdigest()[:16] == "e9e58db627802f0f"
    other = write_long_shapesqa(tmp_path / "train", 2, seed=3, split="train")
    assert table(other, "open")[0]["answer"] != table(root, "open")[0]["answer"]


def test_answers_are_spread_evenly(root):
    rows = table(root, "choice")
    assert len(rows) == 4 * VIDEOS
    assert Counter(row["question_type"] for row in rows) == {"search-digit": 2 * VIDEOS, "search-place": 2 * VIDEOS}
    letters = Counter([row[f"a{i}"] for i in range(4)].index(row["answer"]) for row in rows)
    assert letters == dict.fromkeys(range(4), VIDEOS)
    answers = {kind: Counter() for kind in ("search-digit", "search-place")}
    for row in rows:
        answers[row["question_type"]][row["answer"]] += 1
    assert answers["search-digit"] == dict.fromkeys(DIGITS, 2 * VIDEOS // len(DIGITS))
    assert set(answers["search-place"]) == set(PLACES)
    assert max(answers["search-place"].values()) - min(answers["search-place"].values()) <= 2
    colours = Counter(next(c for c in COLOURS if c in row["question"]) for row in rows)
    assert colours == dict.fromkeys(COLOURS, 4 * VIDEOS // len(COLOURS))


def test_the_videos_show_what_is_asked_about_in_its_span_and_at_no_other_time(root):
    spans = json.loads((root / "shapesqa_spans.json").read_text())
    for row in table(root, "open")[:24]:
        name, colour = row["video_name"], next(c for c in COLOURS if f"{c} sign" in row["question"])
        video = read_video(root / "videos" / f"{name}.mp4", Sample(20_000, "fps:1"))
        ((start, end),) = spans[name]["location"][row["question_id"]]
        seconds = video.indices / spans[name]["fps"]
        assert end - start == 1 and spans[name]["duration"] == video.total / video.fps
        assert 60 <= spans[name]["duration"] <= 300
        seen = [find_sign(frame, colour) for frame in video.frames]
        assert [found is not None for found in seen] == list((seconds >= start) & (seconds < end))
        assert row["answer"] in next(found for found in seen if found)


def test_signs_of_a_video_differ_and_show_at_different_times():
    for signs, starts, total in long._make_films(np.random.default_rng(1), 40):
        assert len(signs) == len(starts) in (3, 4, 5)
        assert all(a.colour != b.colour and a.digit != b.digit for a, b in combinations(signs, 2))
        assert all(abs(a - b) >= 8 for a, b in combinations(starts, 2))
        assert min(starts) >= 8 and max(starts) + long.SHOWN <= total


def test_videos_are_small(root):
    assert max(path.stat().st_size for path in (root / "videos").iterdir()) < 250_000


def test_the_command_renders_what_a_benchmark_reads(tmp_path, capsys):
    assert cli.main(["render", str(tmp_path / "long"), "--videos", "1", "--family", "long"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "long")
    questions = load_benchmark("shapesqa", root=tmp_path / "long").questions
    assert [question.type for question in questions] == ["search-digit"] * 2 + ["search-place"] * 2


@pytest.mark.parametrize(("videos", "seed", "split"), [(0, 0, "test"), (1, -1, "test"), (1, 0, "other")])
def test_bad_arguments(tmp_path, videos, seed, split):
    with pytest.raises((SfllavaError, ValueError), match=r"needed at least 1 video and a seed|split must be one of"):
        write_long_shapesqa(tmp_path, videos, seed, split)
