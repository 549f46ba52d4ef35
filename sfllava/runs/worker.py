"""One video: decode it, encode each frame once, answer all its questions at all settings."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch

from sfllava.aggregators.base import identity_key
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
    """A model and its decoding processes: answers jobs, while the videos that are expected next are decoded.

    Use as a context manager.
    """

    def __init__(self, model: VideoLM, how: GenerationOptions) -> None:
        self._model, self._how = model, how
        self._pool = DecodePool(
            how.decoders, how.decode_seconds, pinned_array if model.info.device.type == "cuda" else None
        )
        self._decoding: dict[str, Future[Video]] = {}
        self._most = MAX_BATCH_QUESTIONS

    def __enter__(self) -> VideoWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def expect(self, job: Job) -> None:
        """Start to decode a job's video, which `answer` will be called for soon."""
        if job.path is not None and job.video not in self._decoding:
            self._decoding[job.video] = self._decode(job)

    def take(self, waiting: deque[Job]) -> list[Job]:
        """The next jobs that have so few questions that they are best answered together; at least one."""
        group = next(group_videos((job.widest for job in waiting), self._most))
        return [waiting.popleft() for _ in group]

    def answer(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """The rows of each setting; a video that fails among others is done by itself, or in a smaller group.

        What fails by itself is tried once more setting by setting, then a row with its reason: a setting too large
        for the memory thus costs its own questions and no other's. Each video is decoded once, unless that fails.
        """
        films = deque[EncodedVideo]()
        for job in jobs:
            if job.path is None:
                yield Outcome(job.failed(job.missing))
                continue
            try:
                films.append(EncodedVideo(self._model, job, self._video(job)))
            except Exception as error:
                _warn(job.video, error, attempt=2)
                yield outcome_of_error(job.video, job.failed(reason_of(error)), error)
        while films:
            counts = [self._most if film.alone else film.widest for film in films]
            group = [films.popleft() for _ in next(group_videos(counts, self._most))]
            for film in films:
                film.forget()  # the memory is for those that are answered
            yield from self._together(group)
            left = [film for film in group if film.left]
            if len(group) > 1:
                films.extendleft(reversed(left))
            else:
                for film in left:
                    yield from self._again(film)

    def _video(self, job: Job) -> Video:
        """The job's video, decoded; a decoder that fails gives way to the other."""
        self.expect(job)
        try:
            return self._decoding.pop(job.video).result()
        except Exception as error:
            _warn(job.video, error)
            decoder: Decoder = "pyav" if isinstance(error, VideoError) else "auto"
        return self._decode(job, decoder).result()

    def _decode(self, job: Job, decoder: Decoder = "auto") -> Future[Video]:
        assert job.path is not None
        side = self._model.info.image_size
        return self._pool.submit(job.path, job.frames, (side, side), decoder)

    def _together(self, films: Sequence[EncodedVideo]) -> Iterator[Outcome]:
        """Setting by setting the rows of all films; what fails is left to be done in smaller groups, or alone."""
        for film in films:
            film.waits = False
        try:
            prefixes = self._model.new_prefixes(len(films))
            for setting in {s.name: s for film in films for s, _ in film.left}.values():
                sides = self._sides(films, setting)
                yield Outcome(list(self._rows(setting, sides, prefixes)))
                for film in films:
                    film.left = [ask for ask in film.left if ask[0].name != setting.name or film.waits]
            return
        except Exception as error:
            _warn(", ".join(film.job.video for film in films), error)
            if not out_of_memory(error):
                for film in films:
                    film.alone = True
            elif len(films) > 1:
                self._fewer(sum(film.widest for film in films) // 2)
        free_memory()

    def _fewer(self, most: int) -> None:
        """From now on answer at most so many questions together: more did not fit the memory."""
        self._most = min(self._most, max(1, most))

    def _sides(self, films: Sequence[EncodedVideo], setting: Setting) -> list[BatchItem]:
        """Films at a setting; of several, those that cannot be encoded beside the others wait until these are done."""
        sides: list[BatchItem] = []
        for i, film in enumerate(films):
            try:
                sides.append(BatchItem(film, self._model, setting, self._how.prompts[setting.name]))
                continue
            except Exception as error:
                if len(films) == 1:
                    raise
                _warn(film.job.video, error)
                ready = [one.widest for one in films[:i] if not one.waits]
                if out_of_memory(error) and ready:
                    self._fewer(sum(ready))
                    wait = films[i:]
                else:
                    film.alone, wait = True, [film]
            for one in wait:
                one.waits = True
            free_memory()
            sides.append(BatchItem(film, self._model, setting, self._how.prompts[setting.name]))
        return sides

    def _again(self, film: EncodedVideo) -> Iterator[Outcome]:
        """The second attempt, setting by setting."""
        film.waits = False
        film.forget()
        for setting, questions in film.left:
            try:
                side = BatchItem(film, self._model, setting, self._how.prompts[setting.name])
                done = Outcome(list(self._rows(setting, [side], self._model.new_prefixes(1))))
            except Exception as error:
                _warn(f"{film.job.video}: {setting.name}", error, attempt=2)
                rows = [make_row(q, setting.name, error=reason_of(error)) for q in questions]
                done = outcome_of_error(film.job.video, rows, error, setting.name)
            if not done.answered:
                film.forget()
                free_memory()
            yield done
        film.forget()

    def _rows(self, setting: Setting, sides: list[BatchItem], prefixes: list[Prefix]) -> Iterator[Row]:
        for prefix in prefixes:
            prefix.reused = 0
        start = time.perf_counter()
        answered = self._model.answer_batch(
            [(side.tokens, side.questions) for side in sides],
            max_new_tokens=self._how.max_new_tokens,
            prompt=self._how.prompts[setting.name],
            answer_mode=self._how.answer_mode,
            prefixes=prefixes,
        )
        seconds = round((time.perf_counter() - start) / max(1, sum(map(len, answered))), 6)
        for side, answers, prefix in zip(sides, answered, prefixes):
            yield from side.failed
            video = side.film.video
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
                    seconds={"encode": side.seconds, "answer": seconds},
                    **({"letters": answer.letters} if answer.letters else {}),
                    **({"damage": video.damage} if video.damage else {}),
                )


class EncodedVideo:
    """A job's decoded video and its patch grids: each frame is encoded once, whatever settings it is in.

    left: what is still to be asked. waits: not with those beside it. alone: it failed among others, for no lack of
    memory that a smaller group would need less of.
    """

    def __init__(self, model: VideoLM, job: Job, video: Video) -> None:
        self.job, self.video, self.left = job, video, list(job.asks)
        self.waits = self.alone = False
        self._model = model
        self._all: Any = None
        self._tiled: dict[object, Any] = {}

    @property
    def widest(self) -> int:
        """Questions at the setting that has the most of them left"""
        return max((len(questions) for _, questions in self.left), default=0)

    def forget(self) -> None:
        """Give the memory of its patch grids back."""
        self._all = None
        self._tiled.clear()

    def grid(self, setting: Setting) -> Any:
        """(T h w D) as the setting's aggregation needs it."""
        at = self.video.positions(setting.frames)
        frames = self.video.frames[at]
        images = setting.images(frames)
        if images is frames:
            self._all = self._model.encode(self.video.frames) if self._all is None else self._all
            return self._all[at]
        key = (setting.frames, identity_key(setting.aggregation))
        if key not in self._tiled:
            self._tiled[key] = self._model.encode(images)
        return self._tiled[key]


class BatchItem:
    """A film at one setting: its tokens, the questions that fit behind them, the rows of those that do not."""

    def __init__(self, film: EncodedVideo, model: VideoLM, setting: Setting, prompt: Prompt) -> None:
        self.film, self.questions, self.failed = film, [], []
        asked = [] if film.waits else [q for s, questions in film.left if s.name == setting.name for q in questions]
        start = time.perf_counter()
        self.tokens = setting.tokens(film.grid(setting)) if asked else torch.zeros(0, 1)
        self.seconds = round((time.perf_counter() - start) / max(1, len(asked)), 6)
        for question in asked:
            try:
                text = sum(map(len, model.info.prompt_ids(question, prompt)))
                model.info.check_context(len(self.tokens), text, question.text)
                self.questions.append(question)
            except SfllavaError as error:
                self.failed.append(make_row(question, setting.name, error=str(error)))


def _warn(what: str, error: Exception, attempt: int = 1) -> None:
    log.warning("%s: attempt %d failed: %s", what, attempt, reason_of(error))
