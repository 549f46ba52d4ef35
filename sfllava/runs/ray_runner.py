"""A run on many GPUs: Ray places the workers, replaces those that die and does their videos again.

A worker is a Ray actor that holds one model. The unit of work is a video with all that is asked of it; this process
hands them out, gets rows back, and alone writes the run folder.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.files import Row
from sfllava.models.engines.options import spread
from sfllava.runs.failures import Outcome, Streak, first_rows
from sfllava.runs.jobs import GenerationOptions, Job
from sfllava.runs.ray_actor import CrashCounter, ModelActor, VideoMissingError, WorkerResult
from sfllava.runs.ray_cluster import check_sendable, connect, exit_reason, plan_workers, ray_output_aside, unwrapped
from sfllava.runs.ray_worker import RayWorker
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo


PATIENCE_SECONDS = 60.0
"""How long to wait for a first worker before a warning, and for a lost worker before giving up."""
log = logging.getLogger(__name__)


class RayRunner:
    """Models in many processes, on this machine or a Ray cluster; a `runner.Runner`.

    Use as a context manager.

    Args:
        path_or_name: The checkpoint; it must have the same path on all nodes.
        workers: By default as many as have room; on CPUs, one on each node.
        address: Of a running cluster: `auto` or HOST:PORT. None starts Ray on this machine and stops it at the end.
        gpus: GPUs of each worker.
        device, dtype, options: As `load_model` takes them; `device` without a number.

    Raises:
        SfllavaError: The arguments are wrong, or Ray cannot be started or joined.
    """

    def __init__(
        self,
        path_or_name: str | Path,
        workers: int | None = None,
        address: str | None = None,
        *,
        gpus: int = 1,
        device: str = "auto",
        dtype: str = "auto",
        **options: Any,
    ) -> None:
        if (workers is not None and workers < 1) or gpus < 1:
            raise SfllavaError(f"needed at least one worker and one GPU each, got {workers} and {gpus}")
        if device not in ("auto", "cpu", "cuda"):
            raise SfllavaError(f"Ray chooses the GPU of each worker: device must be auto, cpu or cuda, got {device!r}")
        self._wanted, self._address, self._gpus, self._device = workers, address, gpus, device
        self._load = {"path_or_name": path_or_name, "dtype": dtype, **options}
        self._info: ModelInfo | None = None
        self._workers: list[RayWorker] = []
        self._busy: dict[Any, tuple[RayWorker, Job | None]] = {}
        """What a worker is at: answering a job, or, without one, coming up"""
        self._runs = 0
        self._alone: float | None = None
        """Since when no worker is up but broken ones"""
        self._ray_messages: deque[str] = deque(maxlen=100)

    def __enter__(self) -> RayRunner:
        with contextlib.ExitStack() as stack:
            stack.enter_context(ray_output_aside(self._ray_messages))
            ray = connect(self._address, stack)
            count, needs = plan_workers(ray.nodes(), self._wanted, self._gpus, self._device, self._address is None)
            self._load["device"] = "cuda" if needs.get("GPU") else "cpu"
            self._load |= spread(self._load, needs.get("GPU", 1))
            self._needs = needs
            self._place(ray, count, needs, stack)
            self._stack = stack.pop_all()
        return self

    def _place(self, ray: Any, count: int, needs: dict[str, int], stack: contextlib.ExitStack) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        name = f"sfllava-{uuid.uuid4().hex}"
        tally = ray.remote(CrashCounter).options(name=name, num_cpus=0, scheduling_strategy=here).remote()
        stack.callback(ray.kill, tally)
        path = [entry for entry in sys.path if entry]
        # what a worker needs stays reserved for it while Ray replaces it, whoever else is on the cluster
        options = {"max_restarts": -1, "max_task_retries": -1}
        options |= {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0)}
        for number in range(count):
            group = ray.util.placement_group([needs])
            stack.callback(ray.util.remove_placement_group, group)
            actor = ray.remote(ModelActor).options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=group), **options
            )
            worker = RayWorker(actor.remote(number, name, self._load, str(Path.cwd()), path), group)
            stack.callback(ray.kill, worker.actor)
            self._workers.append(worker)
            self._busy[worker.actor.ready.remote(None)] = (worker, None)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def info(self) -> ModelInfo:
        """Facts about the model that all workers hold; waits for the first worker."""
        if self._info is None:
            with ray_output_aside(self._ray_messages):
                self._wait(lambda: self._info is not None)
        assert self._info is not None
        return self._info

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return `function(model, *args)` of one of the workers; SfllavaError if none is left."""
        import ray.exceptions

        fingerprint = self.info.fingerprint
        with ray_output_aside(self._ray_messages):
            self._wait(lambda: bool(self._free()))
            try:
                return ray.get(self._free()[0].actor.call.remote(fingerprint, function, args))
            except ray.exceptions.RayError as error:
                raise unwrapped(error) from None

    def run(self, options: GenerationOptions, jobs: Sequence[Job]) -> Generator[list[Row], None, None]:
        """Answer jobs with all workers; a worker that fails several videos in a row loses them to the others.

        Yields:
            All rows of a job together, jobs in the order in which they end.

        Raises:
            SfllavaError: No worker is left.
        """
        check_sendable((options, [setting for job in jobs[:1] for setting, _ in job.by_setting]))
        fingerprint = self.info.fingerprint
        self._runs += 1
        left = {job.video: job for job in jobs}
        fresh = deque(job for job in jobs if job.path is not None)
        for job in jobs:
            if job.path is None:
                yield left.pop(job.video).failed_rows(job.missing)
        for worker in self._workers:
            worker.ahead.clear()
            worker.streak, worker.broken = Streak(), None
        hand_out = partial(self._hand_out, fingerprint, options, fresh, left)
        log.info("%d of %d workers are up; others join as they come up", len(self._idle()), len(self._workers))
        with ray_output_aside(self._ray_messages):
            while left:
                self._check_left()
                hand_out()
                for worker, job, done in self._collect():
                    if left.get(job.video) is not job:  # another worker was faster, or it is of an earlier run
                        continue
                    rows = first_rows(worker.streak.add(done), left)
                    try:
                        if left and not worker.streak.broken:  # it works on while the caller writes the rows
                            hand_out()
                    finally:
                        yield from rows
                    if worker.streak.broken:
                        self._give_up(worker, fresh)
                while self._held_back().issuperset(left) and left and (doubted := self._doubted()):
                    self._give_up(doubted, fresh)
                if self._held_back().issuperset(left):  # nothing else is left to show whose the errors are
                    for worker in self._workers:
                        yield from first_rows(worker.streak.release(), left)

    def _hand_out(self, fingerprint: str, options: GenerationOptions, fresh: deque[Job], left: dict[str, Job]) -> None:
        """Give each free worker a job, and name the next ones, whose videos it decodes meanwhile."""
        for worker in self._free():
            if (job := worker.ahead.popleft() if worker.ahead else self._next(fresh, left)) is None:
                return
            while fresh and len(worker.ahead) < options.decoders:
                worker.ahead.append(fresh.popleft())
            ref = worker.actor.answer.remote(fingerprint, self._runs, options, job, list(worker.ahead))
            self._busy[ref] = (worker, job)

    def _held_back(self) -> set[str]:
        return {video for worker in self._workers for video in worker.streak.videos}

    def _doubted(self) -> RayWorker | None:
        """A worker with videos held back, where another one is up that may do them."""
        for worker in self._workers:
            others = [other for other in self._workers if other is not worker and not other.broken]
            if worker.streak.videos and self._any_up(others):
                return worker
        return None

    def _give_up(self, worker: RayWorker, fresh: deque[Job]) -> None:
        """Leave the videos that a worker failed at, and those that it was to answer next, to the others."""
        worker.broken, worker.streak = worker.streak, Streak()
        self._check_left()
        log.warning("a worker gets no more work, its videos go to others: %s", worker.broken.error)
        fresh.extend(worker.ahead)
        worker.ahead.clear()

    def _check_left(self) -> None:
        """Raise SfllavaError if workers are broken and no other is left; log a warning if others may come up."""
        broken = [worker.broken for worker in self._workers if worker.broken]
        others = [worker for worker in self._workers if not worker.broken]
        if not broken or self._any_up(others):
            self._alone = None
            return
        coming = sum(not worker.node for worker in others)
        if others and self._alone is None:
            self._alone, lost = time.monotonic(), len(others) - coming
            log.warning("no worker is left but %d that come up and %d whose nodes died: waiting for them", coming, lost)
        # Ray places a worker again where it finds room, which takes it a moment
        if not coming and (self._alone is None or time.monotonic() - self._alone > PATIENCE_SECONDS):
            raise broken[-1].stop(" on one worker, and no other is left,")

    def _any_up(self, workers: Sequence[RayWorker]) -> bool:
        """Whether the node of one of them is alive: that on which it was last, or on which Ray places it now."""
        import ray

        if not (known := [worker for worker in workers if worker.node]):
            return False
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if any(worker.node in alive for worker in known):
            return True
        tables = [ray.util.placement_group_table(worker.group) for worker in known]
        return any(node in alive for table in tables for node in table["bundles_to_node_id"].values())

    def _next(self, fresh: deque[Job], left: dict[str, Job]) -> Job | None:
        if fresh:
            return fresh.popleft()
        if reserved := max((worker.ahead for worker in self._workers), key=len, default=None):
            return reserved.pop()
        # Ray does a job again where it finds room for the dead worker; where it finds none, another worker does it
        import ray

        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        held = {job.video for worker, job in self._busy.values() if job and worker.node in alive} | self._held_back()
        return next((job for video, job in left.items() if video not in held), None)

    def _wait(self, until: Callable[[], bool]) -> None:
        """Collect until a worker is up, or free; what jobs of an earlier run gave is dropped."""
        import ray

        start, warned = time.monotonic(), False
        while not until():
            self._check_left()
            for _ in self._collect():
                pass
            if not warned and self._info is None and time.monotonic() - start > PATIENCE_SECONDS:
                warned, free = True, {k: v for k, v in ray.available_resources().items() if k in ("CPU", "GPU")}
                log.warning("no worker is up yet; one needs %s, and the cluster has %s free", self._needs, free)

    def _idle(self) -> list[RayWorker]:
        busy = {worker for worker, _ in self._busy.values()}
        return [worker for worker in self._workers if worker not in busy]

    def _free(self) -> list[RayWorker]:
        return [worker for worker in self._idle() if not worker.broken]

    def _collect(self, seconds: float = 2.0) -> Iterator[tuple[RayWorker, Job, Outcome]]:
        """Wait for workers, if any has something: the jobs that are done or set aside, and what came of them."""
        import ray.exceptions

        for ref in ray.wait(list(self._busy), timeout=seconds)[0]:
            worker, job = self._busy.pop(ref)
            try:
                result: WorkerResult = ray.get(ref)
            except ray.exceptions.RayError as error:
                mended = unwrapped(error)
                if job is None or not isinstance(mended, VideoMissingError) or Path(str(job.path)).exists():
                    raise mended from None
                yield worker, job, Outcome(job.failed_rows(f"{job.path}: no such video any more"))
                continue
            worker.node = result.node
            for name, level, text in result.logged:
                logging.getLogger(name).log(level, "%s", text)
            if job is None:
                self._came_up(result)
            elif result.died:
                reason = f"killed its worker {len(result.died)} times: {exit_reason(result.died, self._ray_messages)}"
                log.warning("%s: set aside: %s", job.video, reason)
                yield worker, job, Outcome(job.failed_rows(reason))
            else:
                yield worker, job, result.value

    def _came_up(self, result: WorkerResult) -> None:
        if self._info is not None and self._info.fingerprint != result.value.fingerprint:
            path = self._load["path_or_name"]
            raise SfllavaError(f"{result.host}: {path} is another checkpoint there than on the first node")
        self._info = self._info or result.value
        log.info("a worker is up on %s", result.host)
