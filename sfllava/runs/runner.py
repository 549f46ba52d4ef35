"""What answers jobs: a model in this process, or many workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sfllava.files import Row
from sfllava.runs.failures import Streak
from sfllava.runs.jobs import GenerationOptions, Job
from sfllava.runs.worker import VideoWorker

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo, VideoLM


@runtime_checkable
class Runner(Protocol):
    """Whatever answers jobs: a model in this process (`LocalRunner`), or many workers (`ray_runner.RayRunner`)."""

    @property
    def info(self) -> ModelInfo: ...

    def run(self, options: GenerationOptions, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        """Yield the rows of all jobs, each once, in pieces that are written together."""
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

    def run(self, options: GenerationOptions, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        """Answer jobs in groups, while the videos of the next jobs are decoded.

        Args:
            options: How the questions are answered.
            jobs: What to ask.

        Yields:
            The rows of one setting of a group at a time.

        Raises:
            SfllavaError: Several videos in a row failed with one error that is not theirs; their rows are not yielded.
        """
        with VideoWorker(self.model, options) as worker:
            upcoming, waiting = iter(jobs), deque[Job]()
            streak = Streak({job.video: i for i, job in enumerate(jobs)})
            while True:
                # two groups, so that the second is decoded while the first is answered
                while (
                    len(waiting) < 2 * options.decoders
                    or sum(job.max_questions for job in waiting) < 2 * self.info.engine.batch_questions
                ):
                    if (job := next(upcoming, None)) is None:
                        break
                    worker.prefetch(job)
                    waiting.append(job)
                if not waiting:
                    yield from streak.release()
                    return
                for done in worker.answer(worker.pop_group(waiting)):
                    yield from streak.add(done)
                    if streak.broken:
                        raise streak.stop()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(model, *args)`."""
        return function(self.model, *args)
