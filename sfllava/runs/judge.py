"""Predictions of a run -> verdicts beside them: resumable, each once, and equal ones paid for once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys
import threading
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfllava.evaluators.judges.base import RUBRICS, Judge, load_rubric
from sfllava.progress import progress_bar
from sfllava.runs.judging_run import JudgingResult, JudgingRun, estimate_cost
from sfllava.runs.run_folder import RunError
from sfllava.runs.verdicts import (
    JudgeItem,
    Row,
    VerdictFile,
    read_about,
    read_items,
    read_verdicts,
    verdict_key,
    verdicts_path,
    waiting_contents,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgingPlan:
    """What judging would do, before it does it; tokens and cost are estimates, rather too high."""

    units: int
    failed: int
    """Predictions that inference failed on: never sent to a judge, and wrong."""
    done: int
    requests: int
    tokens: tuple[int, int]
    cost: float | None
    waiting: int = 0
    """Texts that a batch of the provider's was asked for."""
    paid: bool = True

    def __str__(self) -> str:
        doing = f"{self.units} to judge, {self.done} done before, {self.failed} without a prediction"
        asking = f"{self.requests} requests of about {self.tokens[0]:,} prompt and {self.tokens[1]:,} reply tokens"
        if self.waiting:
            asking = f"{self.waiting} texts wait for a batch; {asking}"
        if self.paid:
            asking += ", prices unknown" if self.cost is None else f", about ${self.cost:,.2f}"
        return f"{doing}; {asking}"


def plan_judging(
    run: str | Path, judge: Judge, *, rubrics: str | Path | None = None, reuse: Iterable[str | Path] = ()
) -> JudgingPlan:
    """What `judge` would do; nothing is sent or written."""
    units = read_items(run, rubrics)
    rows = list(read_verdicts(verdicts_path(run, judge.name)))
    contents = {unit.at: unit.ask.content for unit in units if unit.ask}
    done = {verdict_key(row) for row in rows if not row["error"] and row["content"] == contents.get(verdict_key(row))}
    known = {row["content"] for row in _known(run, judge, _identity(judge, units, rubrics), reuse)}
    asks = {u.ask.content: u.ask for u in units if u.ask and u.at not in done and u.ask.content not in known}
    waiting = asks.keys() & waiting_contents(read_about(run, judge.name))
    tokens, cost = estimate_cost(judge, [ask for content, ask in asks.items() if content not in waiting])
    failed = sum(unit.ask is None for unit in units)
    return JudgingPlan(len(units), failed, len(done), len(asks) - len(waiting), tokens, cost, len(waiting), judge.paid)


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

    Called again it goes on where it stopped, however it stopped, and asks again what failed. rubrics: a folder of
    wordings of your own. limit_cost: US dollars that this call may cost; raises before the first request where the
    estimate is above it. reuse: other runs, whose verdicts by the same judge on equal texts are taken over. batch:
    a `batches.Batches`, to go through the provider's Batch API. Raises JudgeError where going on is of no use.
    """
    units = read_items(run, rubrics)
    for rubric in {unit.ask.rubric.name: unit.ask.rubric for unit in units if unit.ask}.values():
        judge.check(rubric)
    identity = _identity(judge, units, rubrics)
    facts = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv}
    with VerdictFile(run, judge.name, identity, facts, units) as file:
        work = JudgingRun(judge, file, units)
        work.copy_known(_known(run, judge, identity, reuse))
        waiting = file.waiting()
        asks = [asks for content, asks in work.todo.items() if content not in waiting]
        tokens, cost = estimate_cost(judge, [units[0].ask for units in asks if units[0].ask])
        log.info("%s: %d requests, about %d + %d tokens, $%s", judge.name, len(asks), *tokens, cost)
        if limit_cost is not None and cost is None and judge.paid:
            raise RunError("a limit on the cost needs the prices of prompt and reply tokens")
        if limit_cost is not None and cost is not None and cost > limit_cost:
            raise RunError(
                f"{len(asks)} requests would cost about ${cost:,.2f}, more than the limit ${limit_cost:,.2f}"
            )
        try:
            if batch is not None:
                _run(batch.step(judge, work))
            elif asks:
                with progress_bar(len(units), "verdict", work.judged, progress) as bar:
                    _run(work.ask_all(asks, limit_cost, bar))
        finally:
            result = work.result()
            log.info("ended:\n%s", result)
    return result


def _identity(judge: Judge, units: Sequence[JudgeItem], rubrics: str | Path | None) -> Row:
    # all that units of this kind can need, so that a run that grows has the same judge
    names = ["open"] if all(unit.rubric == "open" for unit in units) else list(RUBRICS[1:])
    texts = {name: hashlib.sha256(load_rubric(name, rubrics).text.encode()).hexdigest() for name in names}
    return {**judge.identity, "rubrics_sha256": texts}


def _known(run: str | Path, judge: Judge, identity: Row, reuse: Iterable[str | Path]) -> list[Row]:
    """Verdicts by content: of the run itself, put aside before, and of other runs with the same judge."""
    path = verdicts_path(run, judge.name)
    found = [*read_verdicts(path), *read_verdicts(path.with_name(f"aside-{path.name}"))]
    for other in reuse:
        theirs = read_about(other, judge.name, needed=True)["identity"]
        if theirs != identity:
            raise RunError(f"{verdicts_path(other, judge.name)}: not by the same judge: {theirs}, needed {identity}")
        found += read_verdicts(verdicts_path(other, judge.name))
    return list({row["content"]: row for row in found if not row["error"]}.values())


def _run(work: Coroutine[Any, Any, None]) -> None:
    """asyncio.run, in a thread of its own where a notebook's loop runs already; an interrupt ends it there too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    errors: list[BaseException] = []
    tasks: list[Any] = []

    async def announced() -> None:
        tasks.append(asyncio.current_task())
        await work

    def run() -> None:
        try:
            asyncio.run(announced())
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
