"""Ask questions about one video: decode, encode, aggregate, answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.aggregators.base import detailed_frames, identity_key
from sfllava.display.objects import card, file_name, short, text
from sfllava.files import Row
from sfllava.prompts import Prompt
from sfllava.runs.batch import EncodedVideo
from sfllava.runs.frame_choice import FrameChooser
from sfllava.runs.jobs import Job
from sfllava.runs.selection_source import SelectionSource
from sfllava.runs.video_choice import choose_frames, prepare_source, with_seconds
from sfllava.sampler.images import FrameSize
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.sampling import AnySample
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Answer, Clip, Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskResult:
    """Answers to questions about one video, and how they were produced.

    Attributes:
        video: The decoded frames; where frames are chosen for each question, those of all questions.
        setting: The setting that was used.
        slow_indices: Indices into the source video of the frames on the Slow pathway, likewise.
        visual_tokens: Number of visual tokens; where questions have different numbers, the largest.
        answers: One answer per question, in order.
        seconds: Wall time by stage: encode, answer, decode if the video was given as a path, and select if frames were
            chosen.
        selected: For each question the frames that were chosen for it: `frames` (indices in the video), their `seconds`
            and `scores`, the pathway that they are `for`, and what they were chosen with. Empty if none were chosen.
    """

    video: Video
    setting: Setting
    slow_indices: list[int]
    visual_tokens: int
    answers: list[Answer]
    seconds: dict[str, float]
    selected: list[Row] = field(default_factory=list)

    def __repr__(self) -> str:
        said = "; ".join(f"{short(a.question.text, 40)!r}: {short(a.text, 40)!r}" for a in self.answers)
        return f"AskResult({self.video.path!r}, {self.setting.name!r}, {said})"

    def _repr_html_(self) -> str:
        answers = [f"<b>{text(a.question.text)}</b><div>{a.as_html()}</div>" for a in self.answers]
        times = [f"{stage} {seconds:.2f} s" for stage, seconds in self.seconds.items()]
        facts = [self.setting.name, f"{self.visual_tokens:,} visual tokens", *times]
        shown = self.video.as_strip(self.slow_indices)
        slow = 0 < len(set(self.slow_indices)) < len(self.video.frames)
        note = text("outlined: frames of the Slow pathway", soft=True) if slow else ""
        return card("Asked about", file_name(self.video.path), shown, note, *answers, facts=facts)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `sfllava ask --json` prints."""
        return {
            "video": self.video.path,
            "setting": self.setting.name,
            "frame_indices": self.video.indices.tolist(),
            "slow_indices": self.slow_indices,
            "visual_tokens": self.visual_tokens,
            "answers": [
                {"question": a.question.text, "answer": a.text, "token_ids": list(a.token_ids)}
                | ({"visual_tokens": a.visual_tokens, "selected": self.selected[i]} if self.selected else {})
                for i, a in enumerate(self.answers)
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
    selection: SelectionSource | None = None,
) -> AskResult:
    """Answer questions about one video at one setting.

    Args:
        model: The model.
        video: A path, or a video that is already decoded.
        questions: One or more questions.
        setting: Sampling, aggregation and prompt. Default: the paper's default setting.
        prompt, max_new_tokens: A prompt to use instead of the setting's; the most tokens that an answer may have.
        selection: What frames are chosen with. A list of frames names the video by its file's name.

    Returns:
        The answers, in the order of the questions.

    Raises:
        SfllavaError: A question is empty, two questions are about different clips, or no frames can be chosen.
        VideoError: The video cannot be read.
        ContextError: The tokens do not fit the model's context; raised before a frame is encoded.
    """
    setting = (setting or Setting()).for_model(model.info)
    prompt = prompt or setting.prompt_or(None)
    asked = to_questions(questions)
    if setting.question_aware:
        return _ask_chosen(model, video, asked, setting, prompt, max_new_tokens, selection or SelectionSource())
    seconds, start = {}, time.perf_counter()
    if not isinstance(video, Video):
        video = _decode(model, video, setting, asked)
        seconds["decode"] = time.perf_counter() - start
    # checked after decoding: a video with fewer frames than the setting asks for has fewer tokens
    longest = max((sum(map(len, model.info.prompt_ids(q, prompt))) for q in asked), default=0)
    model.info.check_context(model.info.prompt_rows(setting, len(video.frames)), longest, setting.name)
    start = time.perf_counter()
    grid = model.encode(setting.images(video.frames))
    encoded = time.perf_counter()
    tokens = model.tokens(setting, grid, video.pts_seconds)
    if warning := model.info.describe_unknown_range({setting.name: tokens.count}):
        log.warning("%s", warning)
    answers = model.answer(tokens, asked, max_new_tokens=max_new_tokens, prompt=prompt)
    seconds |= {"encode": encoded - start, "answer": time.perf_counter() - encoded}
    slow_indices = video.indices[detailed_frames(setting.aggregation, len(video.indices))].tolist()
    return AskResult(video, setting, slow_indices, tokens.count, answers, seconds)


def _ask_chosen(
    model: VideoLM, path: str | Path | Video, asked: list[Question], setting: Setting, prompt: Prompt | None,
    max_new_tokens: int, selection: SelectionSource,
) -> AskResult:  # fmt: skip
    """Answer questions about one video, each with the frames that are chosen for it."""
    if isinstance(path, Video):
        raise SfllavaError(f"{setting.name}: frames are chosen from the whole video: pass its path, not its frames")
    clip, start = _one_clip(asked), time.perf_counter()
    chooser = FrameChooser(prepare_source(selection, setting, asked, path), str(model.info.device))
    with DecodePool(1) as pool:
        decode = partial(_decode_samples, pool, path, clip)
        chosen = choose_frames(chooser, path, setting, asked, decode, clip)
        seconds, start = {"select": time.perf_counter() - start}, time.perf_counter()
        job = Job(str(path), str(path), "", [(one.setting, [q]) for one, q in zip(chosen, asked)], clip)
        video = decode(job.samples, (model.info.image_size, model.info.image_size))
        seconds["decode"] = time.perf_counter() - start
    groups: dict[object, list[int]] = {}  # questions with the same frames share a prefix
    for i, one in enumerate(chosen):
        groups.setdefault((one.setting.chosen, identity_key(one.setting.aggregation)), []).append(i)
        text = sum(map(len, model.info.prompt_ids(asked[i], prompt)))
        model.info.check_context(model.info.prompt_rows(one.setting), text, asked[i].text)
    encoded, answers = EncodedVideo(model, job, video), dict[int, Answer]()
    seconds |= {"encode": 0.0, "answer": 0.0}
    prefix = model.new_prefixes(1)[0]
    for members in groups.values():
        own, start = chosen[members[0]].setting, time.perf_counter()
        grid, times = encoded.grid(own), video.pts_seconds[video.positions(own.sample)]
        seconds["encode"] += time.perf_counter() - start
        start = time.perf_counter()
        tokens = model.tokens(own, grid, times)
        questions = [asked[i] for i in members]
        found = model.answer(tokens, questions, max_new_tokens=max_new_tokens, prompt=prompt, prefix=prefix)
        answers |= dict(zip(members, found))
        seconds["answer"] += time.perf_counter() - start
    at = dict(zip(video.indices.tolist(), video.pts_seconds.tolist()))
    slow = {one.indices[i] for one in chosen for i in detailed_frames(one.setting.aggregation, len(one.indices))}
    in_order = [answers[i] for i in range(len(asked))]
    most = max((answer.visual_tokens for answer in in_order), default=0)
    selected = [with_seconds(one.selected, at) for one in chosen]
    return AskResult(video, setting, sorted(slow), most, in_order, seconds, selected)


def _decode_samples(
    pool: DecodePool, path: str | Path, clip: Clip | None, samples: Sequence[AnySample], size: FrameSize
) -> Video:
    return pool.submit(path, samples, size, clip=clip).result()


def _decode(model: VideoLM, path: str | Path, setting: Setting, questions: Sequence[Question]) -> Video:
    """Return the sampled frames of a video."""
    size = (model.info.image_size, model.info.image_size)
    with DecodePool(1) as pool:  # in its own process: a decoder that hangs must not block a notebook's kernel
        return pool.submit(path, setting.sample, size, clip=_one_clip(questions)).result()


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
