"""ShapesQA: the same arguments give the same videos and questions, and questions are about what is shown."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from sfllava.benchmarks import shapesqa
from sfllava.benchmarks.shapesqa import FLASH, FPS, FRAMES, GAP, scenes, write_shapesqa
from sfllava.benchmarks.shapesqa.scenes import CELL, COLOURS, COUNTS, draw_scene, random_scene
from sfllava.types import SfllavaError

VIDEOS = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder, and the frames of each video before they were encoded."""
    frames = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapesqa, "write_video", lambda path, video, fps, **options: frames.append(video))
        return write_shapesqa(tmp_path_factory.mktemp("shapes"), VIDEOS, seed=3), frames


def table(folder, form):
    with (folder / f"shapesqa_{form}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_same_arguments_give_the_same(written):
    folder, frames = written
    text = (folder / "shapesqa_open.csv").read_bytes() + (folder / "shapesqa_choice.csv").read_bytes()
    assert hashlib.sha256(text).hexdigest()[:16] == "ab03d866fc74042b"
    some = np.concatenate([frames[i][t] for i, t in ((0, 0), (5, 20), (11, 63))])
    small = some.reshape(84, 4, 28, 4, 3).mean((1, 3))
    wanted = np.asarray(Image.open(ROOT / "tests" / "data" / "shapesqa.png"), np.float32)
    np.testing.assert_allclose(small, wanted, atol=1)


def test_answers_are_spread_evenly(written):
    rows = table(written[0], "choice")
    assert len(rows) == len(table(written[0], "open")) >= 4 * VIDEOS
    letters = Counter([row[f"a{i}"] for i in range(4)].index(row["answer"]) for row in rows)
    assert set(letters) == set(range(4)) and max(letters.values()) < 0.35 * len(rows)
    assert all(len({row[f"a{i}"] for i in range(4)}) == 4 for row in rows)
    counts = Counter(row["answer"] for row in rows if row["question_type"] == "moment-count")
    assert counts == dict.fromkeys(COUNTS, VIDEOS // 4)
    kinds = Counter((row["video_name"], row["question_type"].split("-")[0]) for row in rows)
    for name in {row["video_name"] for row in rows}:
        assert kinds[name, "detail"] == kinds[name, "moment"] in (2, 3)


def test_flashes_are_as_many_and_of_the_colours_that_the_answers_say(written):
    folder, frames = written
    by_video = {}
    for row in table(folder, "open"):
        by_video.setdefault(row["video_name"], {})[row["question"]] = row["answer"]
    names = list(COLOURS)
    for answers, video in zip(by_video.values(), frames, strict=True):
        middle = video[:, 50:62, 50:62].mean((1, 2))
        off = np.abs(middle[:, None] - np.array([COLOURS[name] for name in names])).max(-1)
        seen = [names[i] if distance < 3 else "" for i, distance in zip(off.argmin(1), off.min(1))]
        starts = [t for t in range(FRAMES) if seen[t] and (t == 0 or seen[t - 1] != seen[t])]
        flashes = [seen[t] for t in starts]
        assert COUNTS[len(flashes) - 1] == answers["How many colours flashed?"]
        assert all(seen[t : t + FLASH] == [seen[t]] * FLASH for t in starts)
        assert sum(map(bool, seen)) == FLASH * len(starts) and (np.diff(starts) >= GAP).all()
        if len(flashes) == 1:
            assert flashes[0] == answers["Which colour flashed?"]
        else:
            assert flashes[0] == answers["Which colour flashed first?"]
            assert flashes[-1] == answers["Which colour flashed last?"]
    assert sum(bool(v[0, 50:62, 50:62].std((0, 1)).max() < 4) for v in frames) >= VIDEOS // 2


def test_spans_are_where_the_asked_flashes_are_seen(written):
    folder, frames = written
    found = json.loads((folder / "shapesqa_spans.json").read_text())
    assert list(found) == list(dict.fromkeys(row["video_name"] for row in table(folder, "open")))
    for video, name in zip(frames, found, strict=True):
        middle = video[:, 50:62, 50:62].mean((1, 2))
        seen = {c: {t for t in range(FRAMES) if np.abs(middle[t] - rgb).max() < 3} for c, rgb in COLOURS.items()}
        assert found[name]["duration"] == FRAMES / FPS and found[name]["fps"] == FPS
        asked = {row["question_id"]: row for row in table(folder, "open") if row["video_name"] == name}
        location = found[name]["location"]
        assert set(location) == {i for i, row in asked.items() if row["question_type"].startswith("moment")}
        for i, spans in location.items():
            shown = [set(range(round(start * FPS), round(end * FPS))) for start, end in spans]
            if asked[i]["question_type"] == "moment-count":
                assert sorted(map(sorted, shown)) == sorted(sorted(when) for when in seen.values() if when)
            else:
                assert shown == [seen[asked[i]["answer"]]]


def test_detail_questions_are_about_what_is_drawn():
    for seed in range(20):
        scene = random_scene(np.random.default_rng(seed), 0)
        image = draw_scene(scene, np.random.default_rng(seed), 0.5).astype(int)
        answers = {question.text: question.answer for question in scenes.ask_detail(scene)}
        assert len(answers) == 6 and not scenes.ask_moment(scene)
        for thing in scene.things:
            y, x = (CELL * c + j for c, j in zip(thing.cell, thing.jitter))
            cell = image[CELL * thing.cell[0] :][:CELL, CELL * thing.cell[1] :][:, :CELL]
            place = f"{'top' if y < 56 else 'bottom'} {'left' if x < 56 else 'right'}"
            name = thing.name if thing.name == "sign" else f"small {thing.name}"
            assert answers[f"Where is the {name}?"] == place
            if thing.name == "sign":
                assert answers["Which digit is on the sign?"] == thing.value
                assert (cell.min(-1) > 230).sum() > 60 and 25 < (cell.max(-1) < 25).sum() < 60
            else:
                assert answers[f"What colour is the {name}?"] == thing.value
                close = (np.abs(cell - COLOURS[thing.value]).max(-1) < 12).sum()
                assert close == (100 if thing.name == "square" else 64)
                assert np.abs(image[y + 5, x + 5] - COLOURS[thing.value]).max() < 12


@pytest.mark.parametrize(("videos", "seed", "split"), [(0, 0, "test"), (1, -1, "test"), (1, 0, "other")])
def test_bad_arguments(tmp_path, videos, seed, split):
    with pytest.raises((SfllavaError, ValueError), match=r"needed at least 1 video and a seed|split must be one of"):
        write_shapesqa(tmp_path, videos, seed, split)
