"""Answer the questions about one video, and score its frames for each answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sfllava.attribution.attribution import attribute_all
from sfllava.attribution.grounding.annotations import AnnotatedQuestion
from sfllava.attribution.grounding.frame_scores import MEASURES, attention_scores, leave_out_scores
from sfllava.attribution.grounding.span_rule import frame_edges
from sfllava.evaluators import find_evaluator
from sfllava.files import Row
from sfllava.models.memory import free_memory
from sfllava.prompts import Prompt
from sfllava.runs.failures import Outcome, outcome_of_error, reason_of
from sfllava.runs.identity import job_name
from sfllava.runs.jobs import GenerationOptions, make_row
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Answer, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM
    from sfllava.models.packed_decoding import Prefix

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundingOptions:
    """How answers are generated and frames scored; the same for all videos.

    Attributes:
        setting: how a video becomes visual tokens, for this model.
        prompt: how the questions are asked.
        generation: how they are answered.
        measures: one or more of `frame_scores.MEASURES`.
    """

    setting: Setting
    prompt: Prompt
    generation: GenerationOptions
    measures: Sequence[str] = MEASURES


@dataclass(frozen=True)
class FrameScores:
    """The frame scores of one answer.

    Attributes:
        scores: measure -> (T) finite scores.
        errors: measure -> why there are no scores.
        unexpected: an error that was neither an SfllavaError nor a lack of memory; None without one.
    """

    scores: dict[str, np.ndarray] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    unexpected: str | None = None


def ground_video(
    model: VideoLM, video: Video, asked: Sequence[AnnotatedQuestion], options: GroundingOptions
) -> Outcome:
    """Answer questions about one video, and score its frames for each answer.

    Args:
        model: a loaded model.
        video: its frames, sampled for the setting.
        asked: the questions.
        options: how answers are generated and frames scored.

    Returns:
        One row per question; and the unexpected error, if it left no answer of the video with scores.
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
        return Outcome(rows)
    start = time.perf_counter()
    questions, most = [item.question for item in fitting], options.generation.max_new_tokens
    answers = model.answer(tokens, questions, max_new_tokens=most, prompt=prompt, prefix=prefix)
    seconds["answer"] = (time.perf_counter() - start) / len(fitting)
    start = time.perf_counter()
    given = [answer for answer in answers if answer.token_ids and not answer.error]
    scored = _score(model, video, given, options, grid, prefix)
    seconds["scores"] = (time.perf_counter() - start) / max(1, len(given))
    by_key = {answer.question.key: found for answer, found in zip(given, scored, strict=True)}
    shared = {"frames": len(video.frames), "seconds": {stage: round(spent, 6) for stage, spent in seconds.items()}}
    for item, answer in zip(fitting, answers, strict=True):
        rows.append(_answer_row(item, answer, video, setting, by_key.get(item.question.key, FrameScores()), shared))
    unexpected = [found.unexpected for found in scored if found.unexpected and not found.scores]
    every = len(unexpected) == len(scored) > 0
    return Outcome(rows, job_name(questions[0].video, questions[0].clip), unexpected[0] if every else None)


def _score(
    model: VideoLM, video: Video, answers: Sequence[Answer], options: GroundingOptions, grid: Any, prefix: Prefix
) -> list[FrameScores]:
    """Score the frames for all answers together; if that fails, answer by answer and measure by measure."""
    if not answers:
        return []
    try:
        found = _score_together(model, video, answers, options, options.measures, grid, prefix)
        return [_finite(scores) for scores in found]
    except Exception as error:
        log.warning("%s: scoring failed, tried again answer by answer: %s", video.path, reason_of(error))
    found = []
    for answer in answers:
        scores, errors, unexpected = {}, {}, None
        for measure in options.measures:
            free_memory()
            try:  # a new prefix, since the error may have left the other one half filled
                fresh = model.new_prefixes(1)[0]
                scores |= _score_together(model, video, [answer], options, [measure], grid, fresh)[0]
            except Exception as error:
                log.warning("%s: %s: %s failed: %s", video.path, answer.question.key, measure, reason_of(error))
                errors[measure] = reason_of(error)
                unexpected = outcome_of_error("", [], error).unexpected or unexpected
        checked = _finite(scores)
        found.append(FrameScores(checked.scores, checked.errors | errors, unexpected))
    return found


def _score_together(
    model: VideoLM, video: Video, answers: Sequence[Answer], options: GroundingOptions, measures: Sequence[str],
    grid: Any, prefix: Prefix,
) -> list[dict[str, np.ndarray]]:  # fmt: skip
    replies, prompt = [(answer.question, answer.token_ids) for answer in answers], options.prompt
    attributions = attribute_all(model, video, options.setting, replies, grid, prompt=prompt, prefix=prefix)
    scored: dict[str, list[np.ndarray]] = {}
    if "attention" in measures:
        scored["attention"] = [attention_scores(each) for each in attributions]
    if "leave-out" in measures:
        scored["leave-out"] = leave_out_scores(model, attributions, grid, prompt=prompt, prefix=prefix)
    return [{name: each[i] for name, each in scored.items()} for i in range(len(answers))]


def _finite(scores: dict[str, np.ndarray]) -> FrameScores:
    """Keep the measures whose scores are all finite."""
    lost = {name: int((~np.isfinite(each)).sum()) for name, each in scores.items()}
    errors = {name: f"{n} of {len(scores[name])} frame scores are not finite" for name, n in lost.items() if n}
    return FrameScores({name: each for name, each in scores.items() if name not in errors}, errors)


def _answer_row(
    item: AnnotatedQuestion, answer: Answer, video: Video, setting: Setting, found: FrameScores, shared: Row
) -> Row:
    if answer.error:
        return make_grounded_row(item, setting, error=answer.error)
    question, evaluator = item.question, find_evaluator(item.question.task)
    assert evaluator is not None
    try:
        edges = _edges(video, item)
    except SfllavaError as error:  # the answer counts all the same
        edges, found = [], FrameScores(errors=dict.fromkeys([*found.scores, *found.errors], str(error)))
    return make_grounded_row(
        item,
        setting,
        prediction=answer.text,
        token_ids=list(answer.token_ids),
        visual_tokens=answer.visual_tokens,
        right=evaluator.grade_quickly(question.answer, question.options, answer.text)[0],
        frame_edges=edges,
        frame_scores={name: [float(f"{score:.6g}") for score in each] for name, each in found.scores.items()},
        **shared,
        **({"score_errors": found.errors} if found.errors else {}),
        **({"damage": video.damage} if video.damage else {}),
    )


def make_grounded_row(item: AnnotatedQuestion, setting: Setting, error: str | None = None, **result: Any) -> Row:
    """Make a row of predictions.jsonl.

    Args:
        item: the annotated question.
        setting: the setting of the answer.
        error: why there is no answer and there are no scores.
        **result: the answer and the frame scores, and for measures without scores the reason in `score_errors`.
    """
    own = {"qid": item.qid, "duration": item.duration, "spans": [list(span) for span in item.spans]}
    empty = {"right": False, "frame_edges": [], "frame_scores": {}}
    return make_row(item.question, setting.name, error, **own, **(empty | result))


def _edges(video: Video, item: AnnotatedQuestion) -> list[float]:
    start, end = (clip.start, clip.end) if (clip := item.question.clip) else (None, None)
    end = item.duration if end is None else end
    edges = frame_edges(_seconds(video, item), video.fps or item.fps, end, start or 0.0)
    return [round(float(edge), 4) for edge in edges]


def _seconds(video: Video, item: AnnotatedQuestion) -> np.ndarray:
    """Return when each frame is shown (T), in seconds; a folder of images needs a frame rate."""
    if not np.isnan(video.pts_seconds).any():
        return video.pts_seconds
    fps = video.fps or item.fps
    if fps is None:
        raise SfllavaError(f"{video.path}: its frames have no timestamps, and the file of spans has no fps for it")
    return video.indices / fps
