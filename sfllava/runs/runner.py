"""What answers jobs: a model in this process, or many workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sfllava.files import Row
from sfllava.runs.failures import Streak
from sfllava.runs.jobs import MAX_BATCH_QUESTIONS, GenerationOptions, Job
from sfllava.runs.worker import VideoWorker

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo, VideoLM


@runtime_checkable
class Runner(Protocol):
    """Whatever answers jobs: a model in this process (`Here`), or many workers (`cluster.Workers`)."""

    @property
    def info(self) -> ModelInfo: ...

    def run(self, how: GenerationOptions, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        """The rows of all jobs, each once, in pieces that belong together on disk."""
        ...

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)`."""
        ...


@dataclass(frozen=True)
class LocalRunner:
    """A model in this process."""

    model: VideoLM

    @property
    def info(self) -> ModelInfo:
        return self.model.info

    def run(self, how: GenerationOptions, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        """The rows of one setting of a group of jobs after another, while the next jobs' videos are decoded.

        Raises SfllavaError where it is not the videos that fail: nothing of those is written.
        """
        with VideoWorker(self.model, how) as desk:
            coming, waiting = iter(jobs), deque[Job]()
            streak = Streak({job.video: i for i, job in enumerate(jobs)})
            while True:
                # twice what is answered together, so that the next are decoded while these are answered
                while len(waiting) < 2 * how.decoders or sum(job.widest for job in waiting) < 2 * MAX_BATCH_QUESTIONS:
                    if (job := next(coming, None)) is None:
                        break
                    desk.expect(job)
                    waiting.append(job)
                if not waiting:
                    yield from streak.release()
                    return
                for done in desk.answer(desk.take(waiting)):
                    yield from streak.add(done)
                    if streak.broken:
                        raise streak.stop()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)`."""
        return function(self.model, *args)
