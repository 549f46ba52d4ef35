"""Ask questions about one video: decode, encode, aggregate, answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.aggregators.base import detailed_frames
from sfllava.prompts import Prompt
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Answer, Clip, Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


@dataclass(frozen=True)
class AskResult:
    """Answers to questions about one video, and how they were produced.

    Attributes:
        video: The decoded frames.
        setting: The setting that was used.
        slow_indices: Indices into the source video of the frames on the Slow pathway.
        visual_tokens: Number of visual tokens.
        answers: One answer per question, in order.
        seconds: Wall time by stage: encode, answer, and decode if the video was given as a path.
    """

    video: Video
    setting: Setting
    slow_indices: list[int]
    visual_tokens: int
    answers: list[Answer]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `sfllava ask --json` prints."""
        return {
            "video": self.video.path,
            "setting": self.setting.name,
            "frame_indices": self.video.indices.tolist(),
            "slow_indices": self.slow_indices,
            "visual_tokens": self.visual_tokens,
            "answers": [
                {"question": a.question.text, "answer": a.text, "token_ids": list(a.token_ids)} for a in self.answers
            ],
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
        }


def ask(
    model: VideoLM,
    video: str | Path | Video,
    questions: str | Sequence[str | Question],
    setting: Setting | None = None,
    *,
    prompt: Prompt | None = None,
    max_new_tokens: int = 256,
) -> AskResult:
    """Answer questions about one video at one setting.

    Args:
        model: The model.
        video: A path, or a video that is already decoded.
        questions: One or more questions.
        setting: Sampling, aggregation and prompt. Default: the paper's default setting.
        prompt: A prompt to use instead of the setting's.
        max_new_tokens: The most tokens that an answer may have.

    Returns:
        The answers, in the order of the questions.

    Raises:
        SfllavaError: A question is empty, or two questions are about different clips.
        VideoError: The video cannot be read.
        ContextError: The tokens do not fit the model's context; raised before a frame is encoded.
    """
    setting = (setting or Setting()).for_model(model.info)
    if setting.question_aware:
        raise SfllavaError(f"{setting.name}: frames are chosen for each question by a run only (`sfllava evaluate`)")
    prompt = prompt or setting.prompt_or(None)
    asked = to_questions(questions)
    seconds = {}
    start = time.perf_counter()
    if not isinstance(video, Video):
        with DecodePool(1) as pool:  # in its own process: a decoder that hangs must not block a notebook's kernel
            size = (model.info.image_size, model.info.image_size)
            video = pool.submit(video, setting.sample, size, clip=_one_clip(asked)).result()
        seconds["decode"] = time.perf_counter() - start
    # checked after decoding: a video with fewer frames than the setting asks for has fewer tokens
    longest = max((sum(map(len, model.info.prompt_ids(q, prompt))) for q in asked), default=0)
    model.info.check_context(model.info.prompt_rows(setting, len(video.frames)), longest, setting.name)
    start = time.perf_counter()
    grid = model.encode(setting.images(video.frames))
    seconds["encode"] = time.perf_counter() - start
    start = time.perf_counter()
    tokens = model.tokens(setting, grid, video.pts_seconds)
    answers = model.answer(tokens, asked, max_new_tokens=max_new_tokens, prompt=prompt)
    seconds["answer"] = time.perf_counter() - start
    slow_indices = video.indices[detailed_frames(setting.aggregation, len(video.indices))].tolist()
    return AskResult(video, setting, slow_indices, tokens.count, answers, seconds)


def _one_clip(questions: Sequence[Question]) -> Clip | None:
    """Return the clip that all questions are about; None for the whole video."""
    clips = list(dict.fromkeys(question.clip for question in questions))
    if len(clips) > 1:
        listed = ", ".join("all of it" if clip is None else str(clip) for clip in clips)
        raise SfllavaError(f"the questions are about different parts of the video: {listed}; ask them one at a time")
    return clips[0] if clips else None


def to_questions(questions: str | Sequence[str | Question]) -> list[Question]:
    """Convert texts to Questions.

    Raises:
        SfllavaError: A question is empty.
    """
    asked = [
        Question(q) if isinstance(q, str) else q for q in ([questions] if isinstance(questions, str) else questions)
    ]
    for i, question in enumerate(asked, 1):
        if not question.text.strip():
            raise SfllavaError(f"question {i} of {len(asked)} is empty: {question.text!r}")
    return asked
