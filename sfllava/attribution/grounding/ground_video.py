"""Answer the questions about one video, and score its frames for each answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sfllava.attribution.attribution import attribute_all
from sfllava.attribution.grounding.annotations import AnnotatedQuestion
from sfllava.attribution.grounding.frame_scores import MEASURES, attention_scores, leave_out_scores
from sfllava.attribution.grounding.span_rule import frame_edges
from sfllava.evaluators import find_evaluator
from sfllava.files import Row
from sfllava.prompts import Prompt
from sfllava.runs.jobs import GenerationOptions, make_row
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Answer, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


@dataclass(frozen=True)
class GroundingOptions:
    """How answers are made and frames scored; the same for all videos.

    Attributes:
        setting: how a video becomes visual tokens, for this model.
        prompt: how the questions are asked.
        generation: how they are answered.
        measures: of `frame_scores.MEASURES`.
    """

    setting: Setting
    prompt: Prompt
    generation: GenerationOptions
    measures: Sequence[str] = MEASURES


def ground_video(
    model: VideoLM, video: Video, asked: Sequence[AnnotatedQuestion], options: GroundingOptions
) -> list[Row]:
    """Answer questions about one video, and score its frames for each answer.

    Args:
        model: a loaded model.
        video: its frames, sampled for the setting.
        asked: the questions.
        options: how answers are made and frames scored.

    Returns:
        One row per question.
    """
    setting, prompt, start = options.setting, options.prompt, time.perf_counter()
    grid, prefix = model.encode(setting.images(video.frames)), model.new_prefixes(1)[0]
    tokens = model.tokens(setting, grid, video.pts_seconds)
    seconds = {"encode": (time.perf_counter() - start) / len(asked)}
    rows, fitting = [], []
    for item in asked:
        try:
            text = sum(map(len, model.info.prompt_ids(item.question, prompt)))
            model.info.check_context(len(tokens), text, item.question.text)
            fitting.append(item)
        except SfllavaError as error:
            rows.append(make_grounded_row(item, setting, error=str(error)))
    if not fitting:
        return rows
    start = time.perf_counter()
    questions, most = [item.question for item in fitting], options.generation.max_new_tokens
    answers = model.answer(tokens, questions, max_new_tokens=most, prompt=prompt, prefix=prefix)
    seconds["answer"] = (time.perf_counter() - start) / len(fitting)
    start = time.perf_counter()
    given = [answer for answer in answers if answer.token_ids and not answer.error]
    scored: dict[str, list[Any]] = {}
    if given:
        replies = [(answer.question, answer.token_ids) for answer in given]
        attributions = attribute_all(model, video, setting, replies, grid, prompt=prompt, prefix=prefix)
        if "attention" in options.measures:
            scored["attention"] = [attention_scores(each) for each in attributions]
        if "leave-out" in options.measures:
            scored["leave-out"] = leave_out_scores(model, attributions, grid, prompt=prompt, prefix=prefix)
    seconds["scores"] = (time.perf_counter() - start) / max(1, len(given))
    scores = {a.question.key: {name: each[i] for name, each in scored.items()} for i, a in enumerate(given)}
    shared = {"frames": len(video.frames), "seconds": {stage: round(spent, 6) for stage, spent in seconds.items()}}
    for item, answer in zip(fitting, answers, strict=True):
        rows.append(_answer_row(item, answer, video, setting, scores.get(item.question.key, {}), shared))
    return rows


def _answer_row(
    item: AnnotatedQuestion, answer: Answer, video: Video, setting: Setting, scores: dict[str, np.ndarray], shared: Row
) -> Row:
    if answer.error:
        return make_grounded_row(item, setting, error=answer.error)
    question, evaluator = item.question, find_evaluator(item.question.task)
    assert evaluator is not None
    start, end = (clip.start, clip.end) if (clip := question.clip) else (None, None)
    end = item.duration if end is None else end
    edges = frame_edges(_seconds(video, item), video.fps or item.fps, end, start or 0.0)
    return make_grounded_row(
        item,
        setting,
        prediction=answer.text,
        token_ids=list(answer.token_ids),
        visual_tokens=answer.visual_tokens,
        right=evaluator.grade_quickly(question.answer, question.options, answer.text)[0],
        frame_edges=[round(float(edge), 4) for edge in edges],
        frame_scores={name: [float(f"{score:.6g}") for score in each] for name, each in scores.items()},
        **shared,
        **({"damage": video.damage} if video.damage else {}),
    )


def make_grounded_row(item: AnnotatedQuestion, setting: Setting, error: str | None = None, **result: Any) -> Row:
    """Make a row of predictions.jsonl.

    Args:
        item: the annotated question.
        setting: of the answer.
        error: why there is no answer, and thus no scores.
        **result: the answer and its scores.
    """
    own = {"qid": item.qid, "duration": item.duration, "spans": [list(span) for span in item.spans]}
    empty = {"right": False, "frame_edges": [], "frame_scores": {}}
    return make_row(item.question, setting.name, error, **own, **(empty | result))


def _seconds(video: Video, item: AnnotatedQuestion) -> np.ndarray:
    """Return when each frame is shown (T); of a folder of images, by its frame rate."""
    if not np.isnan(video.pts_seconds).any():
        return video.pts_seconds
    fps = video.fps or item.fps
    if fps is None:
        raise SfllavaError(f"{video.path}: its frames have no times, and the file of spans has no fps for it")
    return video.indices / fps
