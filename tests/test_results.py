from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from sfllava.plots import budget_accuracy
from sfllava.results import accuracy, difference, interval, load_results
from sfllava.runfolder import RunError


def write_run(folder, rows, benchmark="open"):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"identity": {"benchmark": benchmark}, "sessions": []}))
    common = {"type": "x", "question": "?", "options": [], "visual_tokens": 8, "error": None, "prediction": "no"}
    text = "".join(json.dumps({**common, **row}) + "\n" for row in rows)
    (folder / "predictions.jsonl").write_text(text)
    return folder


def rows_of(setting, right, videos=20):
    """Two questions a video; the first `right` questions are answered."""
    return [
        {
            "key": f"open/{i}",
            "setting": setting,
            "video": f"v{i // 2}",
            "answer": "yes",
            "prediction": "Yes." if i < right else "no",
        }
        for i in range(2 * videos)
    ]


def test_what_failed_is_in_the_denominator(tmp_path):
    rows = rows_of("a", 30)
    rows[0] |= {"error": "v0: no such video", "prediction": None, "visual_tokens": None}
    table = accuracy(load_results(write_run(tmp_path / "run", rows)))
    assert table.to_dict("records")[0] | {"low": 0, "high": 0} == {
        "setting": "a",
        "tokens": 8,
        "questions": 40,
        "failed": 1,
        "accuracy": pytest.approx(100 * 29 / 40),
        "low": 0,
        "high": 0,
    }


def test_choices_are_read_strictly(tmp_path):
    row = {"setting": "a", "video": "v", "answer": "x", "options": ["y", "x"]}
    said = ["B) x", "because", "A", "b"]
    rows = [{**row, "key": f"choice/{i}", "prediction": text} for i, text in enumerate(said)]
    assert load_results(write_run(tmp_path / "run", rows, "choice"))["correct"].tolist() == [True, False, False, True]


def test_intervals_draw_whole_videos():
    """40 videos of 10 equal answers each are 40 observations, not 400."""
    per_video = np.arange(40) % 2
    values, videos = per_video.repeat(10).astype(float), np.arange(40).repeat(10).astype(str)
    mean, low, high = interval(values, videos)
    assert mean == 50 and low == pytest.approx(50 - 100 * 1.96 * 0.5 / 40**0.5, abs=2)
    _, narrow, wide = interval(values, np.arange(400).astype(str))
    assert high - low > 2.5 * (wide - narrow)
    assert interval(np.ones(10), np.arange(10)) == (100, 100, 100)


def test_differences_are_paired(tmp_path):
    results = load_results(write_run(tmp_path / "run", rows_of("a", 30) + rows_of("b", 20)))
    gain, low, high = difference(results, "a", "b")
    assert gain == pytest.approx(25) and 0 < low < gain < high
    assert difference(results, "a", "a") == (0, 0, 0)
    with pytest.raises(RunError, match="a and c were not asked the same questions: 40 and 0 rows"):
        difference(results, "a", "c")


def test_a_benchmark_for_a_judge_has_no_accuracy(tmp_path):
    with pytest.raises(RunError, match="its predictions are for a judge"):
        load_results(write_run(tmp_path / "run", [], "vcgbench"))


def test_the_figure_shows_every_point_with_its_interval():
    table = pd.DataFrame(
        {
            "kind": ["Slow", "Slow", "Fast"],
            "part": ["detail", "moment", "detail"],
            "tokens": [128, 256, 128],
            "accuracy": [50.0, 60, 70],
            "low": [40.0, 50, 65],
            "high": [60.0, 75, 80],
        }
    )
    figure = budget_accuracy(table, "kind", "part", chance=25)
    assert [axis.get_title() for axis in figure.axes] == ["detail", "moment"]
    assert (
        figure.axes[0].get_ylabel() == "accuracy, % (95 % interval)" and figure.axes[1].get_xlabel() == "visual tokens"
    )
    points = {(x, y) for axis in figure.axes for line in axis.lines for x, y in zip(*line.get_data())}
    assert {(128, 50), (256, 60), (128, 70)} <= points
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["chance", "Slow", "Fast"]
    lows = [segment[0][1] for axis in figure.axes for bars in axis.collections for segment in bars.get_segments()]
    assert sorted(lows) == [40, 50, 65]
