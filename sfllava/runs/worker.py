"""Answer all questions about a video at all settings; the video is decoded once, and each frame is encoded once."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from sfllava.files import Row
from sfllava.models.memory import free_memory, out_of_memory, pinned_array
from sfllava.runs.batch import BatchItem, EncodedVideo
from sfllava.runs.failures import Outcome, outcome_of_error, reason_of
from sfllava.runs.frame_choice import FrameChooser
from sfllava.runs.jobs import GenerationOptions, Job, group_videos, make_row
from sfllava.sampler.images import FrameSize
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.sampling import AnySample, Sample
from sfllava.sampler.video import ClipError, Decoder, Video, VideoError
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
        chosen_with = options.selection
        self._chooser = FrameChooser(chosen_with, str(model.info.device)) if chosen_with else None
        self._decoding: dict[str, Future[Video]] = {}
        self._looking: dict[str, tuple[Future[Video], list[AnySample], FrameSize] | None] = {}
        """The frames by which those of a question are chosen; None where all that is needed is on disk"""
        self._max_questions = model.info.engine.batch_questions
        """The largest number of questions in a group of several videos; reduced when memory runs out"""

    def __enter__(self) -> VideoWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def prefetch(self, job: Job) -> None:
        """Start to decode the video of a job that will soon be passed to `answer`, or what its frames are chosen by."""
        if job.path is None or job.video in self._decoding:
            return
        if self._chooser is None or not job.question_aware:
            self._decoding[job.video] = self._decode(job)
            return
        if job.video not in self._looking:
            needed: tuple[list[AnySample], FrameSize] | None = [Sample(1)], (1, 1)
            with contextlib.suppress(OSError):  # the video cannot be read, and decoding it says why
                needed = self._chooser.needed(job)
            self._looking[job.video] = needed and (self._submit(job, *needed), needed[0], needed[1])

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
        yield from self._decode_all(jobs, pending)
        while pending:
            # a video that must be alone counts as a full group
            counts = [self._max_questions if encoded.alone else encoded.max_questions for encoded in pending]
            group = [pending.popleft() for _ in next(group_videos(counts, self._max_questions))]
            for encoded in pending:
                if not any(encoded.grids is other.grids for other in group):
                    encoded.forget()  # the group that is answered now needs the memory
            yield from self._answer_group(group)
            unanswered = [encoded for encoded in group if encoded.remaining]
            if len(group) > 1:
                pending.extendleft(reversed(unanswered))
            else:
                for encoded in unanswered:
                    yield from self._retry_settings(encoded)

    def _decode_all(self, jobs: Sequence[Job], pending: deque[EncodedVideo]) -> Iterator[Outcome]:
        """Add the decoded videos of jobs to `pending`, and yield the rows of what failed.

        A video whose questions have different frames is added in parts; all frames are decoded and encoded together.
        """
        ready: list[tuple[Job, list[Job]]] = []
        for job in jobs:
            if job.path is None:
                yield Outcome(job.failed_rows(job.missing))
                continue
            try:
                parts, failed = self._choose_frames(job)
            except Exception as error:
                # settings with uniform frames go on
                aware = [entry for entry in job.by_setting if entry[0].question_aware]
                yield _failure(replace(job, by_setting=aware), error)
                job = replace(job, by_setting=[entry for entry in job.by_setting if not entry[0].question_aware])
                parts, failed = ([job] if job.by_setting else []), []
            if failed:
                yield Outcome(failed)
            if parts:
                job = replace(job, by_setting=[entry for part in parts for entry in part.by_setting])
                self.prefetch(job)
                ready.append((job, parts))
        for job, parts in ready:
            try:
                whole = EncodedVideo(self._model, job, self.video(job))
                pending.extend(whole.part(part) for part in parts)
            except Exception as error:
                yield _failure(job, error)

    def _choose_frames(self, job: Job) -> tuple[list[Job], list[Row]]:
        """Return the job with the frames of its questions, in parts where they differ; and rows of what failed."""
        if not job.question_aware:
            return [job], []
        if self._chooser is None:
            raise SfllavaError("frames are chosen for each question, and nothing was given to choose them with")
        self.prefetch(job)
        looking = self._looking.pop(job.video)
        return self._chooser.choose(job, looking and self._result(job, *looking))

    def video(self, job: Job) -> Video:
        """Return the decoded video of a job with a path, with the frames of all settings.

        If decoding fails, it is tried once more, with PyAV if the video could not be read.

        Raises:
            VideoError: The video cannot be read.
        """
        self.prefetch(job)
        size = self._model.info.image_size
        return self._result(job, self._decoding.pop(job.video), job.samples, (size, size))

    def _result(self, job: Job, future: Future[Video], samples: Sequence[AnySample], size: FrameSize) -> Video:
        """Return a decoded video; if that fails, try once more."""
        try:
            return future.result()
        except ClipError:
            raise
        except Exception as error:
            _warn(job.video, error)
            decoder: Decoder = "pyav" if isinstance(error, VideoError) else "auto"
        return self._submit(job, samples, size, decoder).result()

    def _decode(self, job: Job) -> Future[Video]:
        size = self._model.info.image_size
        return self._submit(job, job.samples, (size, size))

    def _submit(
        self, job: Job, samples: Sequence[AnySample], size: FrameSize, decoder: Decoder = "auto"
    ) -> Future[Video]:
        assert job.path is not None
        return self._pool.submit(job.path, samples, size, decoder, job.clip)

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
                items.append(BatchItem(encoded, self._model, setting, self._options))
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
            items.append(BatchItem(encoded, self._model, setting, self._options))
        return items

    def _retry_settings(self, encoded: EncodedVideo) -> Iterator[Outcome]:
        """Try the remaining settings of a video a second time, one by one."""
        encoded.postponed = False
        encoded.encode_by_setting()
        for setting, questions in encoded.remaining:
            try:
                item = BatchItem(encoded, self._model, setting, self._options)
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
        for item in items:
            yield from item.failed_rows
        prompts = {self._options.prompt(setting.name, q): None for item in items for q in item.questions}
        for prompt in prompts:  # only one, unless the benchmark has several tasks
            asked = [[q for q in item.questions if self._options.prompt(setting.name, q) == prompt] for item in items]
            for prefix in prefixes:
                prefix.reused = 0
            start = time.perf_counter()
            answered = self._model.answer_batch(
                [(item.tokens, questions) for item, questions in zip(items, asked)],
                max_new_tokens=self._options.max_new_tokens,
                prompt=prompt,
                answer_mode=self._options.answer_mode,
                prefixes=prefixes,
            )
            seconds = round((time.perf_counter() - start) / max(1, sum(map(len, answered))), 6)
            for item, answers, prefix in zip(items, answered, prefixes):
                yield from (item.row(answer, prefix.reused, seconds) for answer in answers)


def _failure(job: Job, error: Exception) -> Outcome:
    """Return the outcome of a job that failed twice."""
    _warn(job.video, error, attempt=2)
    return outcome_of_error(job.video, job.failed_rows(reason_of(error)), error)


def _warn(what: str, error: Exception, attempt: int = 1) -> None:
    log.warning("%s: attempt %d failed: %s", what, attempt, reason_of(error))
