"""The work on one video: decode it, encode each frame once, ask all its questions at all settings -> rows."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from sfllava.benchmarks import Benchmark, BenchmarkError
from sfllava.decoders import DecodePool
from sfllava.disk import Row
from sfllava.models.memory import free, pinned
from sfllava.prompts import Prompt
from sfllava.sampler import Decoder, Video, VideoError
from sfllava.slowfast import front
from sfllava.types import Question, Setting, SfllavaError, key_of

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext
    from sfllava.models.outline import Outline
    from sfllava.models.packed import Prefix

log = logging.getLogger(__name__)
Ask = tuple[Setting, list[Question]]
# Questions up to which videos are answered together: a step of decoding takes hardly longer for 12 than for one
TOGETHER = 12


@dataclass(frozen=True)
class Job:
    """One video, and what is still to be asked of it at each setting, settings of one front side by side."""

    video: str
    path: str | None
    """Its file; None where there is none, for the reason that `missing` gives"""
    missing: str
    asks: list[Ask]

    @property
    def frames(self) -> list[int]:
        return sorted({setting.frames for setting, _ in self.asks})

    @property
    def size(self) -> int:
        return sum(len(questions) for _, questions in self.asks)

    @property
    def widest(self) -> int:
        """Questions at the setting that has the most of them"""
        return max(len(questions) for _, questions in self.asks)

    def failed(self, reason: str) -> list[Row]:
        """The rows of a job that cannot be done."""
        return [make_row(q, setting, error=reason) for setting, questions in self.asks for q in questions]


@dataclass(frozen=True)
class How:
    """What is the same for all jobs of a run. prompts: by setting; decoders: processes that decode."""

    prompts: dict[str, Prompt]
    max_new_tokens: int
    read: str
    decoders: int
    decode_seconds: float


@runtime_checkable
class Runner(Protocol):
    """Whatever answers jobs: a model in this process (`Here`), or many workers (`cluster.Workers`)."""

    @property
    def outline(self) -> Outline: ...

    def run(self, how: How, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        """The rows of all jobs, each once, in pieces that belong together on disk."""
        ...

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)`."""
        ...


@dataclass(frozen=True)
class Here:
    """A model in this process."""

    model: LlavaNext

    @property
    def outline(self) -> Outline:
        return self.model

    def run(self, how: How, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        """The rows of one setting of a group of jobs after another, while the next jobs' videos are decoded."""
        with Desk(self.model, how) as desk:
            coming, waiting = iter(jobs), deque[Job]()
            while True:
                # twice what is answered together, so that the next are decoded while these are answered
                while len(waiting) < 2 * how.decoders or sum(job.widest for job in waiting) < 2 * TOGETHER:
                    if (job := next(coming, None)) is None:
                        break
                    desk.expect(job)
                    waiting.append(job)
                if not waiting:
                    return
                yield from desk.answer(desk.take(waiting))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)`."""
        return function(self.model, *args)


class Desk:
    """A model and its decoding processes: answers jobs, while the videos that are expected next are decoded.

    Use as a context manager.
    """

    def __init__(self, model: LlavaNext, how: How) -> None:
        self._model, self._how = model, how
        self._pool = DecodePool(how.decoders, how.decode_seconds, pinned if model.device.type == "cuda" else None)
        self._decoding: dict[str, Future[Video]] = {}
        self._most = TOGETHER

    def __enter__(self) -> Desk:
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

    def answer(self, jobs: Sequence[Job]) -> Iterator[list[Row]]:
        """The rows of each setting; a video that fails among others is done by itself.

        What fails by itself is tried once more setting by setting, then a row with its reason: a setting too large
        for the memory thus costs its own questions and no other's.
        """
        films: list[_Film] = []
        for job in jobs:
            if job.path is None:
                yield job.failed(job.missing)
                continue
            self.expect(job)
            try:
                films.append(_Film(self._model, job, self._decoding.pop(job.video).result()))
            except Exception as error:
                _warn(job.video, error)
                yield from self._again(job, "pyav" if isinstance(error, VideoError) else "auto")
        failed = short = False
        try:
            yield from self._ask(films)
        except Exception as error:
            _warn(", ".join(film.job.video for film in films), error)
            failed, short = True, isinstance(error, torch.OutOfMemoryError)
        left = [replace(film.job, asks=film.left) for film in films if film.left]
        if short and len(films) > 1:
            self._most = max(1, self._most // 2)
        alone = len(films) == 1
        films.clear()
        if failed:
            free()
        for job in left:
            yield from self._again(job) if alone else self.answer([job])

    def _again(self, job: Job, decoder: Decoder = "auto") -> Iterator[list[Row]]:
        """The second attempt, setting by setting."""
        again = self._decode(job, decoder)
        for ask in job.asks:
            try:
                film = _Film(self._model, replace(job, asks=[ask]), again.result())
                rows = next(self._ask([film]))
            except Exception as error:
                _warn(f"{job.video}: {ask[0].name}", error, attempt=2)
                rows = [make_row(q, ask[0], error=reason_of(error)) for q in ask[1]]
            yield rows

    def _decode(self, job: Job, decoder: Decoder = "auto") -> Future[Video]:
        assert job.path is not None
        side = self._model.image_size
        return self._pool.submit(job.path, job.frames, (side, side), decoder)

    def _ask(self, films: list[_Film]) -> Iterator[list[Row]]:
        """Setting by setting the rows of all films; of several, one that cannot be encoded is left as it is."""
        prefixes = self._model.new_prefixes(len(films)) if films else []
        for name, setting in {s.name: s for film in films for s, _ in film.left}.items():
            sides = []
            for film in films:
                try:
                    sides.append(_Side(film, self._model, setting, self._how.prompts[name]))
                except Exception as error:
                    if len(films) == 1:
                        raise
                    _warn(film.job.video, error)
                    film.spoilt = True
                    sides.append(_Side(film, self._model, setting, self._how.prompts[name]))
            yield list(self._rows(setting, sides, prefixes))
            for side in sides:
                side.film.left = [ask for ask in side.film.left if ask[0].name != name or side.film.spoilt]

    def _rows(self, setting: Setting, sides: list[_Side], prefixes: list[Prefix]) -> Iterator[Row]:
        for prefix in prefixes:
            prefix.reused = 0
        start = time.perf_counter()
        answered = self._model.answer_each(
            [(side.tokens, side.questions) for side in sides],
            max_new_tokens=self._how.max_new_tokens,
            prompt=self._how.prompts[setting.name],
            read=self._how.read,
            prefixes=prefixes,
        )
        seconds = round((time.perf_counter() - start) / max(1, sum(map(len, answered))), 6)
        for side, answers, prefix in zip(sides, answered, prefixes):
            yield from side.failed
            video = side.film.video
            for answer in answers:
                if answer.error:
                    yield make_row(answer.question, setting, error=answer.error)
                    continue
                yield make_row(
                    answer.question,
                    setting,
                    prediction=answer.text,
                    token_ids=list(answer.token_ids),
                    visual_tokens=answer.visual_tokens,
                    reused_tokens=prefix.reused,
                    frames=len(video.positions(setting.frames)),
                    seconds={"encode": side.seconds, "answer": seconds},
                    **({"letters": answer.letters} if answer.letters else {}),
                    **({"damage": video.damage} if video.damage else {}),
                )


class _Film:
    """A job's decoded video and its patch grids: each frame is encoded once, whatever settings it is in."""

    def __init__(self, model: LlavaNext, job: Job, video: Video) -> None:
        self.job, self.video, self.left, self.spoilt = job, video, list(job.asks), False
        self._model, self._tiled = model, {}
        self._all: Any = None

    def grid(self, setting: Setting) -> Any:
        """(T h w D) as the setting's aggregation needs it."""
        at = self.video.positions(setting.frames)
        frames = self.video.frames[at]
        images = setting.images(frames)
        if images is frames:
            self._all = self._model.encode(self.video.frames) if self._all is None else self._all
            return self._all[at]
        key = (setting.frames, key_of(setting.aggregation))
        if key not in self._tiled:
            self._tiled[key] = self._model.encode(images)
        return self._tiled[key]


class _Side:
    """A film at one setting: its tokens, the questions that fit behind them, the rows of those that do not."""

    def __init__(self, film: _Film, model: LlavaNext, setting: Setting, prompt: Prompt) -> None:
        self.film, self.questions, self.failed = film, [], []
        asked = [] if film.spoilt else [q for s, questions in film.left if s.name == setting.name for q in questions]
        start = time.perf_counter()
        self.tokens = setting.tokens(film.grid(setting)) if asked else torch.zeros(0, 1)
        self.seconds = round((time.perf_counter() - start) / max(1, len(asked)), 6)
        for question in asked:
            try:
                text = sum(map(len, model.prompt_ids(question, prompt)))
                model.check_context(len(self.tokens), text, question.text)
                self.questions.append(question)
            except SfllavaError as error:
                self.failed.append(make_row(question, setting, error=str(error)))


def group_videos(counts: Iterable[int], most: int) -> Iterator[list[int]]:
    """The videos that are answered together, by number: in order, as many as have `most` questions or fewer together.

    counts: the questions of each video. One that has more than `most` is a group of its own. A run and its plan both
    group by this.
    """
    group: list[int] = []
    size = 0
    for video, count in enumerate(counts):
        if group and size + count > most:
            yield group
            group, size = [], 0
        group.append(video)
        size += count
    if group:
        yield group


def _warn(what: str, error: Exception, attempt: int = 1) -> None:
    log.warning("%s: attempt %d failed: %s", what, attempt, reason_of(error))


def make_jobs(
    questions: Iterable[Question], settings: Sequence[Setting], done: set[tuple[str, str]], benchmark: Benchmark
) -> Iterator[Job]:
    """A job for each video that has questions whose (key, setting) is not done, in the questions' order."""
    by_video: dict[str, list[Question]] = {}
    for question in questions:
        by_video.setdefault(question.video, []).append(question)
    # settings of one front stand side by side, so that its keys and values are still there for the next
    fronts: dict[object, list[Setting]] = {}
    for setting in settings:
        fronts.setdefault((setting.prompt, setting.frames, front(setting.aggregation)), []).append(setting)
    for video, asked in by_video.items():
        asks = [
            (setting, left)
            for group in fronts.values()
            for setting in group
            if (left := [q for q in asked if (q.key, setting.name) not in done])
        ]
        if asks:
            path, missing = None, ""
            try:
                path = str(benchmark.find_video(video))
            except BenchmarkError as error:
                missing = reason_of(error)
            yield Job(video, path, missing, asks)


def reason_of(error: BaseException) -> str:
    """An error in one line, for a row and the log."""
    text = str(error) if isinstance(error, SfllavaError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def make_row(question: Question, setting: Setting, error: str | None = None, **result: Any) -> Row:
    """A row of predictions.jsonl: the question, and its result or why it failed."""
    return {
        "key": question.key,
        "setting": setting.name,
        "video": question.video,
        "id": question.id,
        "type": question.type,
        "question": question.text,
        "answer": question.answer,
        "options": list(question.options),
        "prediction": None,
        "token_ids": [],
        "visual_tokens": None,
        "seconds": {},
        "error": error,
        **result,
    }
