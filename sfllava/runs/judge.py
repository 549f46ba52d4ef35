"""Judge the predictions of a run: one verdict each, resumable, and equal requests are sent once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfllava.display.private import command_line
from sfllava.display.progress import progress_bar
from sfllava.evaluators.judges.base import Judge, JudgeRequest
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.runs.judge_items import JudgeItem, read_items, rubrics_by_type
from sfllava.runs.judging_run import JudgingResult, JudgingRun, estimate_cost
from sfllava.runs.run_folder import RunError
from sfllava.runs.verdicts import (
    Row,
    VerdictFile,
    read_aside,
    read_judge_info,
    read_verdicts,
    verdict_key,
    verdicts_path,
    waiting_contents,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgingPlan:
    """What judging would do; tokens and cost (US dollars) are estimates, rather too high."""

    items: int
    """Predictions to judge, each under one rubric."""
    failed: int
    """Predictions that inference failed on: never sent to a judge, and counted as wrong."""
    done: int
    requests: int
    tokens: tuple[int, int]
    cost: float | None
    waiting: int = 0
    """Requests in batches that are not collected yet."""
    paid: bool = True

    def __str__(self) -> str:
        doing = f"{self.items} to judge, {self.done} done before, {self.failed} without a prediction"
        if not self.paid and not any(self.tokens):  # a judge that compares words, or nothing left to do
            return doing
        asking = f"{self.requests} requests of about {self.tokens[0]:,} prompt and {self.tokens[1]:,} reply tokens"
        if self.waiting:
            asking = f"{self.waiting} texts wait for a batch; {asking}"
        if self.paid:
            asking += ", prices unknown" if self.cost is None else f", about ${self.cost:,.2f}"
        return f"{doing}; {asking}"


def plan_judging(
    run: str | Path, judge: Judge, *, rubrics: str | Path | None = None, reuse: Iterable[str | Path] = ()
) -> JudgingPlan:
    """Work out what `judge` would do with the same arguments; nothing is sent or written."""
    items = read_items(run, rubrics)
    rows = list(read_verdicts(verdicts_path(run, judge.name)))
    contents = {item.row_key: item.request.content for item in items if item.request}
    done = {verdict_key(row) for row in rows if not row["error"] and row["content"] == contents.get(verdict_key(row))}
    known = {row["content"] for row in _known(run, judge, _identity(run, judge, rubrics), reuse)}
    open_requests = [item.request for item in items if item.request and item.row_key not in done]
    requests = {request.content: request for request in open_requests if request.content not in known}
    waiting = requests.keys() & waiting_contents(read_judge_info(run, judge.name))
    tokens, cost = estimate_cost(judge, [request for content, request in requests.items() if content not in waiting])
    failed = sum(item.request is None for item in items)
    unsent = len(requests) - len(waiting)
    return JudgingPlan(len(items), failed, len(done), unsent, tokens, cost, len(waiting), judge.paid)


def judge(
    run: str | Path,
    judge: Judge,
    *,
    rubrics: str | Path | None = None,
    limit_cost: float | None = None,
    reuse: Iterable[str | Path] = (),
    batch: Any = None,
    progress: bool = True,
) -> JudgingResult:
    """Judge all predictions of a run that have no verdict of this judge yet.

    The same call again continues where it stopped, and retries what failed.

    Args:
        run: The run folder.
        judge: Who gives the verdicts.
        rubrics: A folder with rubrics of your own, NAME.txt each.
        limit_cost: The most that this call may cost, in US dollars.
        reuse: Other runs whose verdicts, by the same judge on equal texts, are copied.
        batch: An `openai_batch.BatchClient`, to use the provider's Batch API.
        progress: Show a progress bar.

    Returns:
        The counts of verdicts, requests, tokens and dollars.

    Raises:
        RunError: The run cannot be judged, or the estimated cost is above the limit; nothing was sent.
        JudgeError: Further requests are pointless.
    """
    items = read_items(run, rubrics)
    _check_rubrics(judge, items)
    identity = _identity(run, judge, rubrics)
    facts = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "command": command_line()}
    with VerdictFile(run, judge.name, identity, facts, items) as file:
        work = JudgingRun(judge, file, items)
        work.copy_known(_known(run, judge, identity, reuse))
        requests = _unsent(work)
        _check_cost(judge, requests, limit_cost)
        try:
            if batch is not None:
                _run(batch.step(judge, work))
            elif requests:
                with progress_bar(len(items), "verdict", work.judged, progress) as bar:
                    _run(work.grade_all(requests, limit_cost, bar))
        finally:
            result = work.result()
            log.info("ended:\n%s", result)
    return result


def _unsent(work: JudgingRun) -> list[JudgeRequest]:
    """Return the open requests that no batch waits for."""
    waiting = work.waiting()
    return [request for content, request in work.open_requests().items() if content not in waiting]


def _check_rubrics(judge: Judge, items: Sequence[JudgeItem]) -> None:
    for rubric in {item.request.rubric.name: item.request.rubric for item in items if item.request}.values():
        judge.check(rubric)


def _check_cost(judge: Judge, requests: Sequence[JudgeRequest], limit_cost: float | None) -> None:
    tokens, cost = estimate_cost(judge, requests)
    log.info("%s: %d requests, about %d + %d tokens, $%s", judge.name, len(requests), *tokens, cost)
    if limit_cost is None:
        return
    if cost is None and judge.paid:
        raise RunError("a limit on the cost needs the prices of prompt and reply tokens")
    if cost is not None and cost > limit_cost:
        raise RunError(
            f"{len(requests)} requests would cost about ${cost:,.2f}, more than the limit ${limit_cost:,.2f}"
        )


def _identity(run: str | Path, judge: Judge, rubrics: str | Path | None) -> Row:
    # all rubrics that such a run can need, so that the identity stays the same while the run grows
    names = [name for names in rubrics_by_type(run).values() for name in names]
    texts = {name: hashlib.sha256(load_rubric(name, rubrics).text.encode()).hexdigest() for name in names}
    return {**judge.identity, "rubrics_sha256": texts}


def _known(run: str | Path, judge: Judge, identity: Row, reuse: Iterable[str | Path]) -> list[Row]:
    """Verdicts to copy, one per content: of the run itself, set aside earlier, and of other runs by the same judge."""
    found = [*read_verdicts(verdicts_path(run, judge.name)), *read_aside(run, judge.name)]
    for other in reuse:
        theirs = read_judge_info(other, judge.name, needed=True)["identity"]
        if theirs != identity:
            raise RunError(f"{verdicts_path(other, judge.name)}: not by the same judge: {theirs}, needed {identity}")
        found += read_verdicts(verdicts_path(other, judge.name))
    return list({row["content"]: row for row in found if not row["error"]}.values())


def _run(work: Coroutine[Any, Any, None]) -> None:
    """asyncio.run; in its own thread if a notebook's event loop already runs, where an interrupt ends it too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    errors: list[BaseException] = []
    tasks: list[Any] = []

    async def cancellable() -> None:
        tasks.append(asyncio.current_task())
        await work

    def run() -> None:
        try:
            asyncio.run(cancellable())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        for task in tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if errors:
        raise errors[0]
