"""One video, some questions: decode, encode, aggregate, answer."""

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
from sfllava.types import Answer, Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


@dataclass(frozen=True)
class AskResult:
    """Answers about one video, and how they came about. `slow_indices` are the Slow pathway's frames of the source."""

    video: Video
    setting: Setting
    slow_indices: list[int]
    visual_tokens: int
    answers: list[Answer]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """What `sfllava ask --json` prints."""
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
    """Answer questions about one video at one setting (the paper's default).

    Raises SfllavaError for an empty question, VideoError for a video that cannot be read, and ContextError, before a
    frame is encoded, for tokens that the model's context does not hold.
    """
    setting = setting or Setting()
    prompt = prompt or setting.prompt_or(None)
    asked = to_questions(questions)
    seconds = {}
    start = time.perf_counter()
    if not isinstance(video, Video):
        with DecodePool(1) as pool:  # a decoder that hangs must not take the notebook's kernel along
            video = pool.submit(video, setting.frames, (model.info.image_size, model.info.image_size)).result()
        seconds["decode"] = time.perf_counter() - start
    # only now: a video of fewer frames than the setting's makes fewer tokens
    longest = max((sum(map(len, model.info.prompt_ids(q, prompt))) for q in asked), default=0)
    model.info.check_context(setting.token_count(*model.info.grid, len(video.frames)), longest, setting.name)
    start = time.perf_counter()
    grid = model.encode(setting.images(video.frames))
    seconds["encode"] = time.perf_counter() - start
    start = time.perf_counter()
    tokens = setting.tokens(grid)
    answers = model.answer(tokens, asked, max_new_tokens=max_new_tokens, prompt=prompt)
    seconds["answer"] = time.perf_counter() - start
    slow_indices = video.indices[detailed_frames(setting.aggregation, len(video.indices))].tolist()
    return AskResult(video, setting, slow_indices, len(tokens), answers, seconds)


def to_questions(questions: str | Sequence[str | Question]) -> list[Question]:
    """Texts as Questions. Raises SfllavaError for an empty one."""
    asked = [
        Question(q) if isinstance(q, str) else q for q in ([questions] if isinstance(questions, str) else questions)
    ]
    for i, question in enumerate(asked, 1):
        if not question.text.strip():
            raise SfllavaError(f"question {i} of {len(asked)} is empty: {question.text!r}")
    return asked
