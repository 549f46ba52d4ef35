"""Files of annotated spans: reading, matching with questions, and one-line errors."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from sfllava.attribution.grounding.annotations import read_annotations
from sfllava.attribution.grounding.metrics import compute_metrics, whole_video
from sfllava.types import Question, SfllavaError

GOOD = {
    "a": {"duration": 30, "location": {"1": [[1.5, 4]], "2": [[0, 3], [20.5, 30.5]]}, "fps": 25},
    "c": {"duration": 8, "location": {}},
}


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_spans_are_read(tmp_path):
    found = read_annotations(written(tmp_path / "s.json", GOOD))
    video = found.videos["a"]
    assert (video.duration, video.fps) == (30, 25)
    assert video.spans == {"1": ((1.5, 4),), "2": ((0, 3), (20.5, 30.5))}


def changed(**fields):
    return {"a": GOOD["a"] | fields}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "s.json: not readable as JSON"),
        ("[1]", r"s.json: needed an object with an entry for each video, got \[1\]"),
        ("{}", "needed an object with an entry for each video"),
        ('{"a": {}, "a": {}}', "key 'a' occurs twice"),
        ({"a": 3}, "s.json: video 'a': needed an object with duration and location, got 3"),
        (changed(duration=0), "video 'a': duration must be a number of seconds above 0, got 0"),
        (changed(duration="30"), "video 'a': duration must be"),
        (changed(duration=True), "video 'a': duration must be"),
        ('{"a": {"duration": NaN, "location": {"1": [[1, 2]]}}}', "video 'a': duration must be"),
        (changed(fps=-1), "video 'a': fps must be a number above 0, got -1"),
        (changed(location=None), "video 'a': location must be an object with spans by question, got null"),
        (changed(location={"7": []}), r"video 'a', question '7': needed a list of \[start, end\], got \[\]"),
        (changed(location={"7": [[1]]}), r"video 'a', question '7': needed \[start, end\] in seconds, got \[1\]"),
        (changed(location={"7": [[1, "x"]]}), "question '7': needed"),
        (changed(location={"7": [[5, 4]]}), "video 'a', question '7': needed a start before the end, got 5 to 4"),
        (changed(location={"7": [[5, 5]]}), "needed a start before the end"),
        (changed(location={"7": [[31, 33]]}), "question '7': needed a span inside the video, 0 to 30, got 31 to 33"),
        (changed(location={"7": [[5, 40]]}), "inside the video, 0 to 30, got 5 to 40"),
        (changed(location={"7": [[-3, 4]]}), "inside the video, 0 to 30, got -3 to 4"),
    ],
)
def test_malformed_entries_are_named(tmp_path, content, message):
    with pytest.raises(SfllavaError, match=message) as error:
        read_annotations(written(tmp_path / "s.json", content))
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(SfllavaError, match=r"gone\.json: cannot read the file of spans: No such file"):
        read_annotations(tmp_path / "gone.json")


def test_questions_are_matched_by_video_and_id(tmp_path):
    annotations = read_annotations(written(tmp_path / "s.json", GOOD))
    asked = [
        Question("why?", "k0", "a", id="2"),
        Question("who?", "k1", "b", id="1"),
        Question("how?", "k2", "a", id="9"),
        Question("when?", "k4", "c", id="1"),
    ]
    matched, without = annotations.match(asked)
    assert [(item.question.key, item.qid, item.asked) for item in matched[:1]] == [("k0", "2", True)]
    assert [question.key for question in without] == ["k1", "k2", "k4"]
    (absent,) = matched[1:]
    assert (absent.question.video, absent.qid, absent.asked) == ("a", "1", False), (
        "a span that nobody asks about counts"
    )
    assert annotations.match([Question("why?", "k", "a", id="a_2")])[0][0].qid == "2"
    for name in ("a2", "_2", "a__2", "__2"):  # not the question "2", though its name ends in it
        with pytest.raises(SfllavaError, match="has no span for any of the 1 questions"):
            annotations.match([Question("why?", "k", "a", id=name)])
    with pytest.raises(SfllavaError, match="video 'a', question '2': needed one question with this id, got k0 and k3"):
        annotations.match([*asked, Question("when?", "k3", "a", id="2")])
    with pytest.raises(SfllavaError, match="has no span for any of the 1 questions, such as video 'b', id '1'"):
        annotations.match(asked[1:2])


@pytest.mark.parametrize(
    ("split", "questions", "videos", "miou", "iop_half"),
    [("val", 3358, 567, 21.3, 10.6), ("test", 5553, 990, 21.1, 8.7)],
)
def test_the_published_files(shared, split, questions, videos, miou, iop_half):
    folder = shared / "qa" / "nextgqa"
    if not folder.is_dir():
        pytest.skip("no question files of NExT-GQA next to the repository")
    annotations = read_annotations(folder / f"gsub_{split}.json")
    with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    asked = [Question(r["question"], f"{i}", r["video_id"], id=r["qid"]) for i, r in enumerate(rows)]
    matched, without = annotations.match(asked)
    assert len(matched) == questions and not without and all(item.asked for item in matched)
    assert len({item.question.video for item in matched}) == videos
    whole = compute_metrics([whole_video(i.duration) for i in matched], [i.spans for i in matched], [True] * questions)
    assert round(100 * whole["mIoU"].mean(), 1) == miou and round(100 * whole["IoP@0.5"].mean(), 1) == iop_half
    assert np.array_equal(whole["Acc@GQA"], whole["IoP@0.5"]), "where every answer is right"
