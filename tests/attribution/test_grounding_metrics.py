"""The metrics of NExT-GQA against examples computed by hand, and against a literal implementation of their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from sfllava.analysis import stats
from sfllava.attribution.grounding.metrics import (
    METRICS,
    GroundedAnswer,
    best_iop,
    best_iou,
    centre_half,
    compute_metrics,
    differences,
    score,
    whole_video,
)


@pytest.mark.parametrize(
    ("predicted", "spans", "iou", "iop"),
    [
        ((2, 6), [(2, 6)], 1, 1),
        ((2, 6), [(4, 10)], 2 / 8, 2 / 4),
        ((4, 5), [(2, 10)], 1 / 8, 1),
        ((0, 10), [(4, 5)], 1 / 10, 1 / 10),
        ((0, 2), [(2, 4)], 0, 0),
        ((0, 2), [(5, 6)], 0, 0),
        # the best of several spans, separately for each metric: the short one for IoU, the long one for IoP
        ((0, 4), [(0, 20), (1, 4)], 3 / 4, 1),
        # spans that extend beyond the ends of the video, as in the published files
        ((0, 10), [(-0.2, 5)], 5 / 10.2, 5 / 10),
        # an instant adds nothing to a union; it is inside or not
        ((3, 3), [(2, 4)], 0, 1),
        ((5, 5), [(2, 4)], 0, 0),
        (None, [(2, 4)], 0, 0),
    ],
)
def test_overlaps_computed_by_hand(predicted, spans, iou, iop):
    assert best_iou(predicted, spans) == pytest.approx(iou)
    assert best_iop(predicted, spans) == pytest.approx(iop)


def literal(predicted, spans, right):
    """The metrics in plain loops, without skipping a question that has no prediction."""
    sums = dict.fromkeys(METRICS, 0.0)
    for guess, listed, correct in zip(predicted, spans, right):
        most_iou = most_iop = 0.0
        for start, end in listed if guess else []:
            inside = min(end, guess[1]) - max(start, guess[0])
            if inside > 0:
                most_iou = max(most_iou, inside / ((end - start) + (guess[1] - guess[0]) - inside))
                most_iop = max(most_iop, inside / (guess[1] - guess[0]))
        sums["Acc@QA"] += correct
        sums["Acc@GQA"] += correct and most_iop >= 0.5
        sums["mIoP"] += most_iop
        sums["mIoU"] += most_iou
        for least in (0.3, 0.5):
            sums[f"IoP@{least}"] += most_iop >= least
            sums[f"IoU@{least}"] += most_iou >= least
    return {name: total / len(spans) for name, total in sums.items()}


def random_questions(n=400, seed=0):
    rng = np.random.default_rng(seed)
    spans = [[tuple(sorted(rng.uniform(0, 40, 2))) for _ in range(rng.integers(1, 4))] for _ in range(n)]
    predicted = [tuple(sorted(rng.uniform(0, 40, 2))) if rng.random() < 0.9 else None for _ in range(n)]
    return predicted, spans, [bool(rng.random() < 0.6) for _ in range(n)]


def test_means_are_those_of_a_literal_implementation():
    questions = random_questions()
    found = compute_metrics(*questions)
    assert tuple(found) == METRICS
    for name, wanted in literal(*questions).items():
        assert found[name].mean() == pytest.approx(wanted), name
    assert 0.05 < found["Acc@GQA"].mean() < found["IoP@0.5"].mean() < found["IoP@0.3"].mean()


def answers_of(predicted, spans, right, videos):
    return [
        GroundedAnswer(video, str(i), tuple(s), 40.0, r, {"own": p})
        for i, (p, s, r, video) in enumerate(zip(predicted, spans, right, videos))
    ]


def test_the_table_counts_every_question_and_clusters_by_video():
    predicted, spans, right = random_questions()
    videos = [f"v{i // 5}" for i in range(len(spans))]
    table = score(answers_of(predicted, spans, right, videos)).set_index(["predictor", "metric"])
    assert list(dict.fromkeys(table.index.get_level_values(0))) == ["own", "whole video", "centre half"]
    assert (table["questions"] == 400).all() and (table["videos"] == 80).all()
    assert (table.loc["own", "missing"] == predicted.count(None)).all() and predicted.count(None) > 20
    assert (table.loc["whole video", "missing"] == 0).all()
    for name, guesses in (("own", predicted), ("whole video", [(0, 40)] * 400), ("centre half", [(10, 30)] * 400)):
        wanted = literal(guesses, spans, right)
        assert {which: table.loc[(name, which), "value"] for which in METRICS} == pytest.approx(
            {which: 100 * value for which, value in wanted.items()}
        )
    interval = stats.mean(compute_metrics(predicted, spans, right)["mIoU"], np.array(videos), 0, 1)
    row = table.loc[("own", "mIoU")]
    assert (row["low"], row["high"]) == pytest.approx((100 * interval.low, 100 * interval.high))


def test_a_missing_prediction_lowers_each_metric():
    spans, videos = [[(0, 4)], [(4, 8)]], ["a", "b"]
    full, part = (score(answers_of(p, spans, [True, True], videos)).set_index(["predictor", "metric"])["value"]
                  for p in ([(0, 4), (4, 8)], [(0, 4), None]))  # fmt: skip
    for which in METRICS:
        assert full["own", which] == 100
        assert part["own", which] == (100 if which == "Acc@QA" else 50), which


def test_a_right_answer_at_the_wrong_time_is_not_grounded():
    found = compute_metrics([(0, 4), (0, 4), (0, 4)], [[(0, 2)], [(0, 1.9)], [(0, 4)]], [True, True, False])
    assert found["Acc@GQA"].tolist() == [1, 0, 0] and found["Acc@QA"].tolist() == [1, 1, 0]


def test_differences_from_the_baselines():
    spans = [[(30 + i % 4, 33 + i % 4)] for i in range(40)]
    found = [(30 + i % 4, 34 + i % 4) for i in range(40)]
    table = differences(answers_of(found, spans, [True] * 40, [f"v{i // 4}" for i in range(40)]))
    row = table.set_index(["predictor", "baseline", "metric"]).loc[("own", "whole video", "mIoU")]
    assert row["points"] == pytest.approx(100 * (3 / 4 - 3 / 40)) and row["low"] > 0 and row["significant"]
    assert len(table) == 6 and whole_video(40) == (0, 40) and centre_half(40) == (10, 30)
