"""The measures of NExT-GQA, with intervals, and tests against simple baselines.

IoU is the overlap of the predicted and an annotated span as a share of their union, IoP as a share of the predicted
span. Of several annotated spans the best counts, for each measure by itself.
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

MEASURES = ("Acc@QA", "Acc@GQA", "mIoP", "IoP@0.3", "IoP@0.5", "mIoU", "IoU@0.3", "IoU@0.5")
"""All are means over all questions. Acc@QA: the answer is right. Acc@GQA: it is right and IoP is at least 0.5. mIoP and
mIoU: the means of IoP and IoU. IoP@x and IoU@x: the share of questions where it is at least x."""
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
        right: whether the answer is right; False where there is none.
        predicted: what predicts spans -> its span, None where there is none.
    """

    video: str
    qid: str
    spans: tuple[Span, ...]
    duration: float
    right: bool
    predicted: Mapping[str, Span | None]


def whole_video(duration: float) -> Span:
    """Return the span of a whole video of so many seconds."""
    return 0.0, duration


def centre_half(duration: float) -> Span:
    """Return the middle half of a video of so many seconds."""
    return duration / 4, 3 * duration / 4


def best_iou(predicted: Span | None, spans: Sequence[Span]) -> float:
    """Return the largest IoU of a span with annotated ones; 0 without a span."""
    if predicted is None:
        return 0.0
    return max(_overlap(predicted, s) / (max(predicted[1], s[1]) - min(predicted[0], s[0])) for s in spans)


def best_iop(predicted: Span | None, spans: Sequence[Span]) -> float:
    """Return the largest IoP of a span with annotated ones; 0 without a span.

    A span without length, such as one instant, is inside (1) or not (0).
    """
    if predicted is None:
        return 0.0
    start, end = predicted
    if end <= start:
        return float(any(first <= start <= last for first, last in spans))
    return max(_overlap(predicted, span) for span in spans) / (end - start)


def _overlap(one: Span, other: Span) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def measure(
    predicted: Sequence[Span | None], spans: Sequence[Sequence[Span]], right: Sequence[bool]
) -> dict[str, np.ndarray]:
    """Compute every measure for each question.

    Args:
        predicted: (N) the predicted spans.
        spans: (N) the annotated spans of each question.
        right: (N) whether each answer is right.

    Returns:
        Name of the measure -> (N) values from 0 to 1, whose mean it is.
    """
    iou = np.array([best_iou(*pair) for pair in zip(predicted, spans, strict=True)])
    iop = np.array([best_iop(*pair) for pair in zip(predicted, spans, strict=True)])
    qa = np.array(right, float)
    shares = {f"{name}@{least}": (part >= least).astype(float) for name, part in (("IoP", iop), ("IoU", iou))
              for least in (0.3, 0.5)}  # fmt: skip
    found = {"Acc@QA": qa, "Acc@GQA": qa * (iop >= 0.5), "mIoP": iop, "mIoU": iou} | shares
    return {name: found[name] for name in MEASURES}


def score(answers: Sequence[GroundedAnswer]) -> pd.DataFrame:
    """Score what predicts spans, and both baselines, on the same answers.

    Args:
        answers: every annotated question, whether it has an answer and a predicted span or not.

    Returns:
        One row for each predictor and measure: value in percent with its 95 % interval low to high, clustered by video;
        the number of questions, of videos, and of questions without a predicted span (missing), which count as 0.
    """
    videos = np.array([answer.video for answer in answers])
    rows = []
    for name, values in _by_predictor(answers).items():
        missing = sum(_prediction(answer, name) is None for answer in answers)
        for which, each in values.items():
            found = stats.mean(each, videos, 0.0, 1.0)
            numbers = {"value": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
            counts = {"questions": found.n, "videos": found.videos, "missing": missing}
            rows.append({"predictor": name, "measure": which} | numbers | counts)
    return pd.DataFrame(rows)


def differences(answers: Sequence[GroundedAnswer]) -> pd.DataFrame:
    """Compare each predictor with both baselines on the same questions.

    Args:
        answers: as for `score`.

    Returns:
        One row for each predictor, baseline and measure in COMPARED: the difference in points with its 95 % interval
        low to high; p of the sign-flip test over videos (`stats.difference`); p_holm, corrected for the number of rows;
        significant: p_holm < 0.05.
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
                rows.append({"predictor": name, "baseline": baseline, "measure": which} | points)
    table = pd.DataFrame(rows, columns=["predictor", "baseline", "measure", "points", "low", "high", "p"])
    table["p_holm"] = stats.holm(table["p"].to_numpy(float)) if len(table) else []
    table["significant"] = table["p_holm"] < 0.05
    return table


def _by_predictor(answers: Sequence[GroundedAnswer]) -> dict[str, dict[str, np.ndarray]]:
    spans, right = [answer.spans for answer in answers], [answer.right for answer in answers]
    names = [*dict.fromkeys(name for answer in answers for name in answer.predicted), *BASELINES]
    return {name: measure([_prediction(answer, name) for answer in answers], spans, right) for name in names}


def _prediction(answer: GroundedAnswer, name: str) -> Span | None:
    if name in BASELINES:
        return (whole_video if name == "whole video" else centre_half)(answer.duration)
    return answer.predicted.get(name)
