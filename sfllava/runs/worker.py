"""Answer all questions about a video at all settings; the video is decoded once, and each frame is encoded once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch

from sfllava.aggregators.base import identity_key
from sfllava.aggregators.native import NativeFrames
from sfllava.files import Row
from sfllava.models.memory import free_memory, out_of_memory, pinned_array
from sfllava.prompts import Prompt
from sfllava.runs.failures import Outcome, outcome_of_error, reason_of
from sfllava.runs.jobs import MAX_BATCH_QUESTIONS, GenerationOptions, Job, group_videos, make_row
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.video import Decoder, Video, VideoError
from sfllava.settings import Setting
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM
    from sfllava.models.packed_decoding import Prefix

log = logging.getLogger(__name__)


class VideoWorker:
    """Answers jobs with one model, while other processes decode the next videos; use it as a context manager.

    Args:
        model: A loaded model.
        options: How the questions are answered.
    """

    def __init__(self, model: VideoLM, options: GenerationOptions) -> None:
        self._model, self._options = model, options
        self._pool = DecodePool(
            options.decoders, options.decode_seconds, pinned_array if model.info.device.type == "cuda" else None
        )
        self._decoding: dict[str, Future[Video]] = {}
        self._max_questions = MAX_BATCH_QUESTIONS
        """The largest number of questions in a group of several videos; reduced when memory runs out"""

    def __enter__(self) -> VideoWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def prefetch(self, job: Job) -> None:
        """Start to decode the video of a job that will soon be passed to `answer`."""
        if job.path is not None and job.video not in self._decoding:
            self._decoding[job.video] = self._decode(job)

    def pop_group(self, waiting: deque[Job]) -> list[Job]:
        """Remove and return the next jobs to answer together: as many as fit in a group, at least one."""
        group = next(group_videos((job.max_questions for job in waiting), self._max_questions))
        return [waiting.popleft() for _ in group]

    def answer(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Answer jobs together, setting by setting.

        What fails is tried again in smaller pieces:

        1. A video that fails in a group is tried again alone, or in a smaller group if memory ran out.
        2. A video that fails alone is tried again one setting at a time.
        3. The questions of a setting that fails then get rows with the error.

        So a setting that is too large for the memory costs its own questions and no others.

        Args:
            jobs: The jobs of a group, as `pop_group` returns them.

        Yields:
            The rows of one setting at a time.
        """
        pending = deque[EncodedVideo]()
        for job in jobs:
            if job.path is None:
                yield Outcome(job.failed_rows(job.missing))
                continue
            try:
                pending.append(EncodedVideo(self._model, job, self._video(job)))
            except Exception as error:
                _warn(job.video, error, attempt=2)
                yield outcome_of_error(job.video, job.failed_rows(reason_of(error)), error)
        while pending:
            # a video that must be alone counts as a full group
            counts = [self._max_questions if encoded.alone else encoded.max_questions for encoded in pending]
            group = [pending.popleft() for _ in next(group_videos(counts, self._max_questions))]
            for encoded in pending:
                encoded.forget()  # the group that is answered now needs the memory
            yield from self._answer_group(group)
            unanswered = [encoded for encoded in group if encoded.remaining]
            if len(group) > 1:
                pending.extendleft(reversed(unanswered))
            else:
                for encoded in unanswered:
                    yield from self._retry_settings(encoded)

    def _video(self, job: Job) -> Video:
        """Return the decoded video; if that fails, try once more, with PyAV if the video could not be read."""
        self.prefetch(job)
        try:
            return self._decoding.pop(job.video).result()
        except Exception as error:
            _warn(job.video, error)
            decoder: Decoder = "pyav" if isinstance(error, VideoError) else "auto"
        return self._decode(job, decoder).result()

    def _decode(self, job: Job, decoder: Decoder = "auto") -> Future[Video]:
        assert job.path is not None
        size = self._model.info.image_size
        return self._pool.submit(job.path, job.frames, (size, size), decoder)

    def _answer_group(self, group: Sequence[EncodedVideo]) -> Iterator[Outcome]:
        """Answer videos together, setting by setting; what fails stays in `remaining`, to be tried again."""
        for encoded in group:
            encoded.postponed = False
        try:
            prefixes = self._model.new_prefixes(len(group))
            for setting in {s.name: s for encoded in group for s, _ in encoded.remaining}.values():
                items = self._encode_group(group, setting)
                yield Outcome(list(self._rows(setting, items, prefixes)))
                for encoded in group:
                    encoded.remaining = [
                        (s, questions)
                        for s, questions in encoded.remaining
                        if s.name != setting.name or encoded.postponed
                    ]
            return
        except Exception as error:
            _warn(", ".join(encoded.job.video for encoded in group), error)
            if not out_of_memory(error):
                for encoded in group:
                    encoded.alone = True
            elif len(group) > 1:
                self._reduce_max_questions(sum(encoded.max_questions for encoded in group) // 2)
        free_memory()

    def _reduce_max_questions(self, limit: int) -> None:
        """Answer at most this many questions together from now on, because more did not fit the memory."""
        self._max_questions = min(self._max_questions, max(1, limit))

    def _encode_group(self, group: Sequence[EncodedVideo], setting: Setting) -> list[BatchItem]:
        """Encode videos at one setting; a video of a group that cannot be encoded is postponed for all settings."""
        items: list[BatchItem] = []
        for i, encoded in enumerate(group):
            try:
                items.append(BatchItem(encoded, self._model, setting, self._options.prompts[setting.name]))
                continue
            except Exception as error:
                if len(group) == 1:
                    raise
                _warn(encoded.job.video, error)
                ready = [other.max_questions for other in group[:i] if not other.postponed]
                if out_of_memory(error) and ready:
                    self._reduce_max_questions(sum(ready))
                    postponed = group[i:]
                else:
                    encoded.alone, postponed = True, [encoded]
            for other in postponed:
                other.postponed = True
            free_memory()
            # a postponed video stays in the batch without questions
            items.append(BatchItem(encoded, self._model, setting, self._options.prompts[setting.name]))
        return items

    def _retry_settings(self, encoded: EncodedVideo) -> Iterator[Outcome]:
        """Try the remaining settings of a video a second time, one by one."""
        encoded.postponed = False
        encoded.forget()
        for setting, questions in encoded.remaining:
            try:
                item = BatchItem(encoded, self._model, setting, self._options.prompts[setting.name])
                done = Outcome(list(self._rows(setting, [item], self._model.new_prefixes(1))))
            except Exception as error:
                _warn(f"{encoded.job.video}: {setting.name}", error, attempt=2)
                rows = [make_row(q, setting.name, error=reason_of(error)) for q in questions]
                done = outcome_of_error(encoded.job.video, rows, error, setting.name)
            if not done.answered:
                encoded.forget()
                free_memory()
            yield done
        encoded.forget()

    def _rows(self, setting: Setting, items: list[BatchItem], prefixes: list[Prefix]) -> Iterator[Row]:
        """Answer the questions of a batch at one setting, and yield one row per question."""
        for prefix in prefixes:
            prefix.reused = 0
        start = time.perf_counter()
        answered = self._model.answer_batch(
            [(item.tokens, item.questions) for item in items],
            max_new_tokens=self._options.max_new_tokens,
            prompt=self._options.prompts[setting.name],
            answer_mode=self._options.answer_mode,
            prefixes=prefixes,
        )
        seconds = round((time.perf_counter() - start) / max(1, sum(map(len, answered))), 6)
        for item, answers, prefix in zip(items, answered, prefixes):
            yield from item.failed_rows
            video = item.encoded.video
            for answer in answers:
                if answer.error:
                    yield make_row(answer.question, setting.name, error=answer.error)
                    continue
                yield make_row(
                    answer.question,
                    setting.name,
                    prediction=answer.text,
                    token_ids=list(answer.token_ids),
                    visual_tokens=answer.visual_tokens,
                    reused_tokens=prefix.reused,
                    frames=len(video.positions(setting.frames)),
                    seconds={"encode": item.seconds, "answer": seconds},
                    **({"letters": answer.letters} if answer.letters else {}),
                    **({"damage": video.damage} if video.damage else {}),
                )


class EncodedVideo:
    """The decoded video of a job and its patch grids; each frame is encoded once for all settings.

    Attributes:
        job: The job.
        video: The decoded video.
        remaining: The settings that are not answered yet, with their questions.
        postponed: Whether the current group is answered without it.
        alone: Whether it must be answered alone, because it failed in a group for a reason other than memory.
    """

    def __init__(self, model: VideoLM, job: Job, video: Video) -> None:
        self.job, self.video, self.remaining = job, video, list(job.by_setting)
        self.postponed = self.alone = False
        self._model = model
        self._frames_grid: Any = None
        self._image_grids: dict[object, Any] = {}

    @property
    def max_questions(self) -> int:
        """The number of questions at the remaining setting with the most questions."""
        return max((len(questions) for _, questions in self.remaining), default=0)

    def forget(self) -> None:
        """Drop the patch grids to free their memory; `grid` encodes them again."""
        self._frames_grid = None
        self._image_grids.clear()

    def grid(self, setting: Setting) -> Any:
        """Return the patch grid (T h w D) that the setting's aggregator takes."""
        positions = self.video.positions(setting.frames)
        frames = self.video.frames[positions]
        images = setting.images(frames)
        if images is frames:
            if self._frames_grid is None:
                self._frames_grid = self._model.encode(self.video.frames)
            return self._frames_grid[positions]
        frame_by_frame = isinstance(images, NativeFrames) and images.per_image == 1
        key = (0 if frame_by_frame else setting.frames, identity_key(setting.aggregation))
        if key not in self._image_grids:
            self._image_grids[key] = self._model.encode(NativeFrames(self.video.frames) if frame_by_frame else images)
        return self._image_grids[key][positions] if frame_by_frame else self._image_grids[key]


class BatchItem:
    """One video of a batch at one setting.

    Attributes:
        encoded: The video.
        questions: The questions that fit the context together with the visual tokens.
        failed_rows: The rows of those that do not fit.
        tokens: The visual tokens (N D).
        seconds: Time to encode and aggregate, in seconds per question.
    """

    def __init__(self, encoded: EncodedVideo, model: VideoLM, setting: Setting, prompt: Prompt) -> None:
        self.encoded, self.questions, self.failed_rows = encoded, [], []
        remaining = [] if encoded.postponed else encoded.remaining
        asked = [question for s, questions in remaining if s.name == setting.name for question in questions]
        start = time.perf_counter()
        seconds = encoded.video.pts_seconds[encoded.video.positions(setting.frames)]
        self.tokens = model.tokens(setting, encoded.grid(setting), seconds) if asked else torch.zeros(0, 1)
        self.seconds = round((time.perf_counter() - start) / max(1, len(asked)), 6)
        for question in asked:
            try:
                text = sum(map(len, model.info.prompt_ids(question, prompt)))
                model.info.check_context(len(self.tokens), text, question.text)
                self.questions.append(question)
            except SfllavaError as error:
                self.failed_rows.append(make_row(question, setting.name, error=str(error)))


def _warn(what: str, error: Exception, attempt: int = 1) -> None:
    log.warning("%s: attempt %d failed: %s", what, attempt, reason_of(error))
