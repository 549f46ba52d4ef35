"""Which frames a rule chooses, next to slow implementations of the published formulas; and lists of frames."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sfllava.sampler.sampling import FrameIndices, Sample
from sfllava.sampler.selection.frame_list import read_frame_list
from sfllava.sampler.selection.selectors import parse_selection, selectors
from sfllava.types import Question, SfllavaError

CASES = [(seed, count, n) for seed in range(25) for count, n in ((40, 4), (64, 8), (100, 32), (333, 50), (70, 64))]


def scores_of(seed, count):
    """Random scores; every third time mostly flat with a few peaks, as for a question about one moment."""
    values = np.random.default_rng(seed).random(count)
    return np.where(values > 0.97, values, values * 0.02) if seed % 3 == 0 else values


def literal_topk(scores, n):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return sorted(order[:n])


def literal_bolt(scores, n, power):
    low, high = min(scores), max(scores)
    weights = [((s - low) / (high - low)) ** power for s in scores]
    total, running, reached = sum(weights), 0.0, []
    for weight in weights:
        running += weight / total
        reached.append(running)
    step = (1 - 2 / n) / (n - 1)
    return [next(j for j, value in enumerate(reached) if value >= 1 / n + i * step) for i in range(n)]


def literal_aks(scores, n, threshold=0.8, depth=5):
    low, high = min(scores), max(scores)
    kept, waiting = [], [([(s - low) / (high - low) for s in scores], list(range(len(scores))), 0)]
    while waiting:
        values, frames, level = waiting.pop()
        top = sorted(values, reverse=True)[:n]
        if sum(top) / len(top) - sum(values) / len(values) > threshold or level == depth:
            kept.append((values, frames, level))
        else:
            half = len(values) // 2
            waiting += [(values[:half], frames[:half], level + 1), (values[half:], frames[half:], level + 1)]
    found = []
    for values, frames, level in kept:
        found += [frames[i] for i in literal_topk(values, int(n / 2**level))]
    return sorted(found)


@pytest.mark.parametrize(("seed", "count", "n"), CASES)
def test_rules_are_the_published_ones(seed, count, n):
    scores = scores_of(seed, count)
    assert parse_selection("topk").choose(scores, n).tolist() == literal_topk(scores, n)
    for text, power in (("bolt", 3), ("bolt:power=2.5", 2.5)):
        # the two sums round differently: where a bound is met to the last bit, they may be one frame apart
        found, wanted = parse_selection(text).choose(scores, n).tolist(), literal_bolt(scores, n, power)
        assert len(found) == n and found == wanted
    depth = min(5, int(math.log2(n)))
    assert parse_selection("aks").choose(scores, n).tolist() == literal_aks(scores, n, depth=depth)
    assert parse_selection("aks:threshold=0.4,depth=2").choose(scores, n).tolist() == literal_aks(scores, n, 0.4, 2)


def test_aks_keeps_a_segment_with_a_peak_whole():
    peak = np.zeros(64)
    peak[[3, 9]] = 1.0
    # 2 frames: both are in the first half, which halving would give one frame only
    assert parse_selection("aks").choose(peak, 2).tolist() == [3, 9]
    flat = np.random.default_rng(1).random(64)
    assert [i // 8 for i in parse_selection("aks").choose(flat, 8).tolist()] == list(range(8))


@pytest.mark.parametrize("seed", range(8))
def test_qframe_is_top_k_of_noisy_scores(seed):
    scores = np.random.default_rng(seed).normal(20, 3, 128)
    noise = np.random.default_rng(seed).random(128)
    exponents = [math.exp((s - max(scores)) / 0.8) for s in scores]
    ranked = [
        math.log(e / sum(exponents)) - math.log(-math.log(u + 1e-10) + 1e-10) for e, u in zip(exponents, noise.tolist())
    ]
    assert parse_selection("qframe").choose(scores, 44, seed).tolist() == literal_topk(ranked, 44)
    assert parse_selection(f"qframe:seed={seed}").choose(scores, 44).tolist() == literal_topk(ranked, 44)
    others = [parse_selection("qframe").choose(scores, 44, other).tolist() for other in (100 + seed, 200 + seed)]
    assert others[0] != others[1]
    assert selectors()["qframe"].candidates == Sample(128, "fps:1")


def test_flat_scores_and_few_candidates():
    flat = np.full(60, 0.3)
    assert set(np.diff(parse_selection("bolt").choose(flat, 6)).tolist()) <= {7, 8, 9}
    assert len(parse_selection("aks").choose(flat, 8)) == 8
    few = np.array([0.1, 0.9, 0.2])
    for name in ("topk", "aks", "qframe"):
        assert parse_selection(name).choose(few, 8).tolist() == [0, 1, 2]
    repeated = parse_selection("bolt").choose(few, 8).tolist()
    assert len(repeated) == 8 and set(repeated) <= {0, 1, 2} and repeated.count(1) >= 6
    for n in (1, 2):
        assert len(parse_selection("bolt").choose(flat, n)) == n


def test_names():
    for text in (
        "uniform",
        "topk",
        "bolt:power=2.5",
        "aks:depth=3,threshold=0.7",
        "qframe:seed=4",
        "listed",
        "qframe:seed=1234567",
        "bolt:power=2.0000001",
        "qframe:tau=0.00001",
    ):
        assert str(parse_selection(text)) == text
    assert str(parse_selection("bolt:power=3")) == "bolt" and next(iter(selectors())) == "uniform"
    for text, wanted in (
        ("best", "no selection is called 'best'; choose from uniform, aks, bolt, listed, qframe, topk"),
        ("bolt:tau=1", "needed options as OPTION=NUMBER; bolt has power=3"),
        ("topk:power=two", "topk has none"),
        ("bolt:power=-1", "power: needed a number above 0, got -1"),
        ("qframe:tau=0", "tau: needed a number above 0, got 0"),
        ("aks:depth=2.5", "depth: needed a whole number from 0, got 2.5"),
    ):
        with pytest.raises(SfllavaError, match=wanted):
            parse_selection(text)
    with pytest.raises(SfllavaError, match="topk: needed finite scores of candidates, got 1 of 2 that are not"):
        parse_selection("topk").choose(np.array([1.0, np.nan]), 1)
    with pytest.raises(SfllavaError, match="indices of frames, from 0"):
        FrameIndices((3, -1))


QUESTIONS = [
    Question("what is it?", "b/0", "a.mp4", id="7"),
    Question("what next?", "b/1", "a.mp4", id="8"),
    Question("what is it?", "b/2", "c.mp4", id="9"),
]


def forms(tmp_path):
    """One selection, in each form that is published."""
    rows = [
        {"video": "a", "question_id": "7", "indices": [4, 1]},
        {"video": "a", "question_id": "8", "indices": [2]},
        {"video": "c", "question_id": "9", "indices": [0, 6]},
    ]
    values = {
        "nested": {"a.mp4": {"7": [4, 1], "what next?": [2]}, "c": {"b/2": [0, 6]}},
        "bolt": {
            "a": [{"question_id": "7", "question": "-", "frames": [2.0, 0.5]}, {"question_id": "8", "frames": [1.0]}],
            "c": [{"question_id": "x", "question": "what is it?", "frames": [0.0, 3.0]}],
        },
        "rows": rows,
        "aks": [[4, 1], [2], [0, 6]],
    }
    for name, value in values.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
        yield tmp_path / f"{name}.json"
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield tmp_path / "lines.jsonl"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    yield tmp_path / "table.parquet"


def test_lists_in_all_forms(tmp_path):
    found = [
        [read_frame_list(path, QUESTIONS).indices(question, 0, 9, 2.0) for question in QUESTIONS]
        for path in forms(tmp_path)
    ]
    assert found == [[(1, 4), (2,), (0, 6)]] * 6


def test_an_id_of_two_questions_counts_for_none(tmp_path):
    rows = [{"question_id": "a", "question": q.text, "frames": [i]} for i, q in enumerate(QUESTIONS[:2])]
    (tmp_path / "f.json").write_text(json.dumps({"a": rows}))
    listed = read_frame_list(tmp_path / "f.json", QUESTIONS)
    assert [listed.indices(q, 0, 9, None) for q in QUESTIONS[:2]] == [(0,), (1,)]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"z": {"7": [1]}}, "its 1 selections are for other questions: needed 'a.mp4', 'b/0' .* got 'z', '7'"),
        ([[1], [2]], "in the order of the questions needs 3 entries, got 2"),
        ([{"video": "a", "id": "7"}], "row 1: needed a field indices or .*, got video, id"),
        ([{"id": "7", "frames": [1]}], "row 1: needed a field video"),
        ({"a": {"7": [-1]}}, "video 'a', question '7': needed a list of frames, numbers from 0, got .-1."),
        ({"a": {"7": []}}, "needed a list of frames"),
        ({"a": [{"id": "7", "frames": [1]}, {"id": "7", "frames": [2]}]}, "two selections for video a, question '7'"),
        ({"a": 3}, "video 'a': needed its questions, got int"),
        ([], "needed frames of at least one question"),
        (3, "needed an object or a list, got int"),
        (None, "cannot be read as a list of frames: "),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, value, wanted):
    path = tmp_path / "f.json"
    path.write_text("{" if value is None else json.dumps(value))
    with pytest.raises(SfllavaError, match=wanted) as error:
        read_frame_list(path, QUESTIONS)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_frames_outside_the_video(tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({"a": {"7": [3, 90], "8": [1.0]}}))
    listed = read_frame_list(tmp_path / "f.json", QUESTIONS)
    with pytest.raises(SfllavaError, match=r"question 'b/0' needs frame 90, and video a.mp4 has frames 0 to 29"):
        listed.indices(QUESTIONS[0], 0, 29, 8.0)
    with pytest.raises(SfllavaError, match=r"'b/1' has seconds, and video a.mp4 has no frame rate"):
        listed.indices(QUESTIONS[1], 0, 29, None)
    with pytest.raises(SfllavaError, match=r"no frames for question 'b/2' of video c.mp4"):
        listed.indices(QUESTIONS[2], 0, 29, None)


def test_random_choices_are_in_the_order_of_time():
    for name in selectors():
        selection = parse_selection(name)
        if selection.needs_scores:
            for n in (1, 3, 16):
                found = selection.choose(np.random.default_rng(n).random(90), n, 5)
                assert (np.diff(found) >= 0).all() and 1 <= len(found) <= n and found.max() < 90
