"""The metrics of NExT-GQA with confidence intervals, and significance tests against simple baselines.

IoU is the overlap of the predicted and an annotated span divided by their union; IoP divides by the length of the
predicted span instead. With several annotated spans, the best one counts, separately for IoU and IoP.
"""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.attribution.grounding.annotations import Span

METRICS = ("Acc@QA", "Acc@GQA", "mIoP", "IoP@0.3", "IoP@0.5", "mIoU", "IoU@0.3", "IoU@0.5")
"""Each metric is a mean over all questions. Acc@QA: the answer is right. Acc@GQA: it is right and its IoP is at least
0.5. mIoP and mIoU: mean IoP and IoU. IoP@x and IoU@x: the fraction of questions with an IoP or IoU of at least x."""
COMPARED = ("Acc@GQA", "mIoP", "mIoU")
BASELINES = ("whole video", "centre half")


@dataclass(frozen=True)
class GroundedAnswer:
    """An answer to a question with annotated spans.

    Attributes:
        video: the video's name.
        qid: the question's id in the file of spans.
        spans: the annotated spans.
        duration: of the video, in seconds.
        right: whether the answer is right; False if there is no answer.
        predicted: predictor of spans -> its span; None if it has none.
    """

    video: str
    qid: str
    spans: tuple[Span, ...]
    duration: float
    right: bool
    predicted: Mapping[str, Span | None]


def whole_video(duration: float) -> Span:
    """Return the span of a whole video; its duration is in seconds."""
    return 0.0, duration


def centre_half(duration: float) -> Span:
    """Return the middle half of a video; its duration is in seconds."""
    return duration / 4, 3 * duration / 4


def best_iou(predicted: Span | None, spans: Sequence[Span]) -> float:
    """Return the largest IoU of a predicted span with the annotated spans; 0 without a prediction."""
    if predicted is None:
        return 0.0
    return max(_overlap(predicted, s) / (max(predicted[1], s[1]) - min(predicted[0], s[0])) for s in spans)


def best_iop(predicted: Span | None, spans: Sequence[Span]) -> float:
    """Return the largest IoP of a predicted span with the annotated spans; 0 without a prediction.

    A span of length 0 has an IoP of 1 if it is inside an annotated span, and 0 otherwise.
    """
    if predicted is None:
        return 0.0
    start, end = predicted
    if end <= start:
        return float(any(first <= start <= last for first, last in spans))
    return max(_overlap(predicted, span) for span in spans) / (end - start)


def _overlap(one: Span, other: Span) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def compute_metrics(
    predicted: Sequence[Span | None], spans: Sequence[Sequence[Span]], right: Sequence[bool]
) -> dict[str, np.ndarray]:
    """Compute every metric for each question.

    Args:
        predicted: (N) the predicted spans.
        spans: (N) the annotated spans of each question.
        right: (N) whether each answer is right.

    Returns:
        Name of the metric -> (N) values from 0 to 1; the metric is their mean.
    """
    iou = np.array([best_iou(*pair) for pair in zip(predicted, spans, strict=True)])
    iop = np.array([best_iop(*pair) for pair in zip(predicted, spans, strict=True)])
    qa = np.array(right, float)
    shares = {f"{name}@{least}": (part >= least).astype(float) for name, part in (("IoP", iop), ("IoU", iou))
              for least in (0.3, 0.5)}  # fmt: skip
    found = {"Acc@QA": qa, "Acc@GQA": qa * (iop >= 0.5), "mIoP": iop, "mIoU": iou} | shares
    return {name: found[name] for name in METRICS}


def score(answers: Sequence[GroundedAnswer]) -> pd.DataFrame:
    """Score every predictor of spans and both baselines on the same answers.

    Args:
        answers: all annotated questions, including those without an answer or a predicted span.

    Returns:
        One row for each predictor and metric: `value` in percent with its 95 % interval from `low` to `high`, clustered
        by video; the numbers of `questions` and `videos`; and the number of questions without a predicted span
        (`missing`), which count as 0.
    """
    videos = np.array([answer.video for answer in answers])
    rows = []
    for name, values in _by_predictor(answers).items():
        missing = sum(_prediction(answer, name) is None for answer in answers)
        for which, each in values.items():
            found = stats.mean(each, videos, 0.0, 1.0)
            numbers = {"value": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
            counts = {"questions": found.n, "videos": found.videos, "missing": missing}
            rows.append({"predictor": name, "metric": which} | numbers | counts)
    return pd.DataFrame(rows)


def differences(answers: Sequence[GroundedAnswer]) -> pd.DataFrame:
    """Compare each predictor with both baselines on the same questions.

    Args:
        answers: as for `score`.

    Returns:
        One row for each predictor, baseline and metric in COMPARED: the difference in `points`, with its 95 % interval
        from `low` to `high`; `p` of the sign-flip test over videos (`stats.difference`); `p_holm`, corrected for the
        number of rows; `significant`: p_holm < 0.05.
    """
    videos = np.array([answer.video for answer in answers])
    values = _by_predictor(answers)
    rows = []
    for name in (name for name in values if name not in BASELINES):
        for baseline in BASELINES:
            for which in COMPARED:
                found = stats.difference(values[name][which], values[baseline][which], videos)
                mean = found.estimate
                points = {"points": 100 * mean.mean, "low": 100 * mean.low, "high": 100 * mean.high, "p": found.p}
                rows.append({"predictor": name, "baseline": baseline, "metric": which} | points)
    table = pd.DataFrame(rows, columns=["predictor", "baseline", "metric", "points", "low", "high", "p"])
    table["p_holm"] = stats.holm(table["p"].to_numpy(float)) if len(table) else []
    table["significant"] = table["p_holm"] < 0.05
    return table


def _by_predictor(answers: Sequence[GroundedAnswer]) -> dict[str, dict[str, np.ndarray]]:
    spans, right = [answer.spans for answer in answers], [answer.right for answer in answers]
    names = [*dict.fromkeys(name for answer in answers for name in answer.predicted), *BASELINES]
    return {name: compute_metrics([_prediction(answer, name) for answer in answers], spans, right) for name in names}


def _prediction(answer: GroundedAnswer, name: str) -> Span | None:
    if name in BASELINES:
        return (whole_video if name == "whole video" else centre_half)(answer.duration)
    return answer.predicted.get(name)
