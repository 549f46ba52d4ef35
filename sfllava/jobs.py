"""The work on one video: decode it, encode each frame once, ask all its questions at all settings -> rows."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sfllava.benchmarks import Benchmark, BenchmarkError
from sfllava.decoders import DecodePool
from sfllava.disk import Row
from sfllava.prompts import Prompt
from sfllava.sampler import Video, VideoError
from sfllava.slowfast import front
from sfllava.types import Question, Setting, SfllavaError, name_of

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext, Prefix
    from sfllava.models.outline import Outline

log = logging.getLogger(__name__)
Ask = tuple[Setting, list[Question]]


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
        """The rows of a job setting by setting, while the next jobs' videos are decoded."""
        with Desk(self.model, how) as desk:
            waiting: deque[Job] = deque()
            for job in jobs:
                desk.expect(job)
                waiting.append(job)
                if len(waiting) > 2 * how.decoders:
                    yield from desk.answer(waiting.popleft())
            while waiting:
                yield from desk.answer(waiting.popleft())

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)`."""
        return function(self.model, *args)


class Desk:
    """A model and its decoding processes: answers one job, while those that are expected next are decoded.

    Use as a context manager.
    """

    def __init__(self, model: LlavaNext, how: How) -> None:
        self._model, self._how = model, how
        self._pool = DecodePool(how.decoders, how.decode_seconds)
        self._decoding: dict[str, Future[Video]] = {}

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def expect(self, job: Job) -> None:
        """Start to decode a job's video, which `answer` will be called for soon."""
        if job.path is not None and job.video not in self._decoding:
            self._decoding[job.video] = self._decode(job)

    def answer(self, job: Job) -> Iterator[list[Row]]:
        """The rows of each setting; what fails is tried once more by itself, then a row with its reason.

        A setting too large for the memory thus costs its own questions and no other's.
        """
        if job.path is None:
            yield job.failed(job.missing)
            return
        self.expect(job)
        left = list(job.asks)
        try:
            for ask, rows in self._ask(self._decoding.pop(job.video).result(), left[:]):
                left.remove(ask)
                yield rows
            return
        except Exception as error:
            log.warning("%s: attempt 1 failed: %s", job.video, reason_of(error))
            again = self._decode(job, "pyav" if isinstance(error, VideoError) else "auto")
        for setting, questions in left:
            try:
                rows = [row for _, rows in self._ask(again.result(), [(setting, questions)]) for row in rows]
            except Exception as error:
                reason = reason_of(error)
                log.warning("%s: %s: attempt 2 failed: %s", job.video, setting.name, reason)
                rows = [make_row(q, setting, error=reason) for q in questions]
            yield rows

    def _decode(self, job: Job, decoder: Any = "auto") -> Future[Video]:
        assert job.path is not None
        side = self._model.image_size
        return self._pool.submit(job.path, job.frames, (side, side), decoder)

    def _ask(self, video: Video, asks: list[Ask]) -> Iterator[tuple[Ask, list[Row]]]:
        seen, prefix = _Seen(self._model, video), self._model.new_prefix()
        for setting, questions in asks:
            before = seen.seconds
            tokens = setting.tokens(seen.grid(setting))
            encoding = (seen.seconds - before) / len(questions)
            rows = list(_answer(self._model, self._how, video, tokens, setting, questions, encoding, prefix))
            yield (setting, questions), rows


class _Seen:
    """A decoded video's patch grids: each frame is encoded once, whatever settings it is in."""

    def __init__(self, model: LlavaNext, video: Video) -> None:
        self._model, self._video, self._tiled = model, video, {}
        self._all: Any = None
        self.seconds = 0.0

    def grid(self, setting: Setting) -> Any:
        """(T h w D) as the setting's aggregation needs it."""
        start = time.perf_counter()
        at = self._video.positions(setting.frames)
        frames = self._video.frames[at]
        images = setting.images(frames)
        if images is frames:
            self._all = self._model.encode(self._video.frames) if self._all is None else self._all
            grid = self._all[at]
        else:
            key = (setting.frames, name_of(setting.aggregation))
            if key not in self._tiled:
                self._tiled[key] = self._model.encode(images)
            grid = self._tiled[key]
        self.seconds += time.perf_counter() - start
        return grid


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


def _answer(
    model: LlavaNext,
    how: How,
    video: Video,
    tokens: Any,
    setting: Setting,
    questions: list[Question],
    encoding: float,
    prefix: Prefix,
) -> Iterator[Row]:
    prompt = how.prompts[setting.name]
    fits = []
    for question in questions:
        try:
            model.check_context(len(tokens), sum(map(len, model.prompt_ids(question, prompt))), question.text)
            fits.append(question)
        except SfllavaError as error:
            yield make_row(question, setting, error=str(error))
    if not fits:
        return
    start, prefix.reused = time.perf_counter(), 0
    options = {"max_new_tokens": how.max_new_tokens, "prompt": prompt, "read": how.read, "prefix": prefix}
    answers = model.answer(tokens, fits, **options)
    seconds = {"encode": round(encoding, 6), "answer": round((time.perf_counter() - start) / len(fits), 6)}
    for answer in answers:
        yield make_row(
            answer.question,
            setting,
            prediction=answer.text,
            token_ids=list(answer.token_ids),
            visual_tokens=answer.visual_tokens,
            reused_tokens=prefix.reused,
            frames=len(video.positions(setting.frames)),
            seconds=seconds,
            **({"letters": answer.letters} if answer.letters else {}),
            **({"damage": video.damage} if video.damage else {}),
        )


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
