"""The work of one judge on one run: what is left, asking for it, the rows that come of it, and the counts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.evaluators.judges.base import Judge, JudgeError, JudgeRequest
from sfllava.runs.verdicts import JudgeItem, Row, VerdictFile, verdict_key
from sfllava.types import SfllavaError, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgingResult:
    """What `judge` did, in counts of verdicts; `waiting` for a batch of the provider's."""

    path: Path
    units: int
    judged: int
    failed: int
    no_prediction: int
    waiting: int
    requests: int
    tokens: tuple[int, int]
    cost: float | None
    reasons: dict[str, int]
    response_models: tuple[str, ...]
    stopped: str = ""

    @property
    def complete(self) -> bool:
        return self.judged + self.no_prediction == self.units

    def __str__(self) -> str:
        left = self.units - self.judged - self.failed - self.no_prediction - self.waiting
        counts = (
            ("judged", self.judged), ("without a prediction", self.no_prediction),
            ("failed at the judge, retried on the next call", self.failed),
            ("waiting for a batch", self.waiting), ("left", left),
        )  # fmt: skip
        lines = [f"{self.path}: {self.units} to judge: " + ", ".join(f"{n} {name}" for name, n in counts if n)]
        paid = f", ${self.cost:,.4f}" if self.cost is not None else ""
        lines.append(f"  this call: {self.requests} requests, {self.tokens[0]:,} + {self.tokens[1]:,} tokens{paid}")
        lines += [f"  failed {count} x: {reason}" for reason, count in list(self.reasons.items())[:5]]
        if self.response_models:
            lines.append(f"  the server called its model {', '.join(self.response_models)}")
        if len(self.response_models) > 1:
            lines.append("  more than one model judged: these verdicts are not of one kind")
        return "\n".join([*lines, *([f"  stopped: {self.stopped}"] if self.stopped else [])])


class JudgingRun:
    """The units without a verdict by their content, and writing verdicts for them."""

    def __init__(self, judge: Judge, file: VerdictFile, units: Sequence[JudgeItem]) -> None:
        self.judge, self.file, self.units = judge, file, units
        done = {verdict_key(row): row for row in file.rows()}
        self.judged = len(done)
        self.reasons: Counter[str] = Counter()
        self.response_models = {row.get("served") or "" for row in done.values()}
        self.requests, self.tokens, self.cost = 0, (0, 0), 0.0
        self.stopped = ""
        self.todo: dict[str, list[JudgeItem]] = {}
        for unit in units:
            if unit.ask and unit.at not in done:
                self.todo.setdefault(unit.ask.content, []).append(unit)

    def copy_known(self, known: Iterable[Row]) -> None:
        """Write the rows of units whose content has a verdict already."""
        copies = []
        for row in known:
            for unit in self.todo.pop(row["content"], ()):
                free = {"key": unit.key, "setting": unit.setting, "video": unit.video, "paid": False, "tries": 0}
                copies.append({**row, **free, "tokens": [0, 0], "cost": None if row.get("cost") is None else 0.0})
        if copies:
            self.file.append(copies)
            self.judged += len(copies)
            log.info("%s: %d verdicts on equal texts taken over", self.judge.name, len(copies))

    def rows_of(self, content: str, verdict: Verdict) -> list[Row]:
        """The rows that a verdict is for, and its place in the counts; the units are then done with."""
        units = self.todo.pop(content)
        self.requests += verdict.tries
        self.tokens = (self.tokens[0] + verdict.tokens[0], self.tokens[1] + verdict.tokens[1])
        self.cost += verdict.cost or 0.0
        if verdict.error is None:
            self.judged += len(units)
            self.response_models.add(verdict.response_model)
        else:
            self.reasons[verdict.error] += len(units)
        return [_row(unit, verdict, paid=i == 0) for i, unit in enumerate(units)]

    async def ask_all(self, asks: Sequence[list[JudgeItem]], limit_cost: float | None, bar: Any) -> None:
        """Ask with the judge's concurrency; a place is free again when its verdict is on disk."""
        queue, writer = deque(asks), _Writer(self.file)
        reserved, failures, most = 0.0, 0, max(20, 2 * self.judge.concurrency)
        fatal: list[SfllavaError] = []

        async def place() -> None:
            nonlocal reserved, failures
            while queue and not fatal and not self.stopped:
                part = [queue.popleft() for _ in range(min(self.judge.batch, len(queue)))]
                asked = [units[0].ask for units in part if units[0].ask]
                _, most_cost = estimate_cost(self.judge, asked)
                if limit_cost is not None and self.cost + reserved + (most_cost or 0.0) > limit_cost:
                    self.stopped = f"the limit of ${limit_cost:,.2f} was near"
                    return
                reserved += most_cost or 0.0
                try:
                    verdicts = await self.judge.grade(asked)
                except JudgeError as error:  # others in flight are paid for: they end first
                    fatal.append(error)
                    return
                finally:
                    reserved -= most_cost or 0.0
                rows = [row for a, v in zip(asked, verdicts, strict=True) for row in self.rows_of(a.content, v)]
                await writer.write(rows)
                bar.update(sum(not row["error"] for row in rows))
                for verdict in verdicts:
                    failures = failures + 1 if verdict.error else 0
                    if failures >= most and not fatal:
                        fatal.append(JudgeError(f"{failures} verdicts failed in a row, the last: {verdict.error}"))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.judge.concurrency, len(queue))):
                    group.create_task(place())
        except* Exception as errors:  # the first says what happened; a group of them would not
            raise errors.exceptions[0] from None
        finally:
            await self.judge.close()
        if fatal:
            raise fatal[0]

    def result(self) -> JudgingResult:
        """What was done so far."""
        waiting = self.file.waiting()
        return JudgingResult(
            path=self.file.path,
            units=len(self.units),
            judged=self.judged,
            failed=self.reasons.total(),
            no_prediction=sum(unit.ask is None for unit in self.units),
            waiting=sum(len(units) for content, units in self.todo.items() if content in waiting),
            requests=self.requests,
            tokens=self.tokens,
            cost=self.cost if self.judge.price else None,
            reasons=dict(self.reasons.most_common()),
            response_models=tuple(sorted(self.response_models - {""})),
            stopped=self.stopped,
        )


class _Writer:
    """Rows of many places in one synced write: whoever comes while one is under way waits for the next."""

    def __init__(self, file: VerdictFile) -> None:
        self._file, self._rows = file, []
        self._waiting: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()

    async def write(self, rows: list[Row]) -> None:
        """Return when the rows are on disk."""
        self._rows += rows
        ours = self._waiting = self._waiting or asyncio.get_running_loop().create_future()
        async with self._lock:
            if not ours.done():
                taken, self._rows, self._waiting = self._rows, [], None
                try:
                    await asyncio.to_thread(self._file.append, taken)
                    ours.set_result(None)
                except asyncio.CancelledError:
                    ours.cancel()
                    raise
                except Exception as error:
                    ours.set_exception(error)
        await ours


def estimate_cost(judge: Judge, asks: Iterable[JudgeRequest]) -> tuple[tuple[int, int], float | None]:
    """(prompt, reply) tokens, and US dollars where the judge knows its prices; rather too high."""
    tokens = [judge.tokens(ask) for ask in asks]
    total = (sum(t[0] for t in tokens), sum(t[1] for t in tokens))
    return total, None if judge.price is None else sum(n * p for n, p in zip(total, judge.price)) / 1e6


def _row(unit: JudgeItem, verdict: Verdict, paid: bool) -> Row:
    assert unit.ask
    return {
        "key": unit.key,
        "setting": unit.setting,
        "rubric": unit.rubric,
        "video": unit.video,
        "content": unit.ask.content,
        "correct": verdict.correct,
        "score": verdict.score,
        "reply": verdict.reply,
        "judge": verdict.judge,
        "model": verdict.model,
        "served": verdict.response_model,
        "tokens": list(verdict.tokens) if paid else [0, 0],
        "cost": verdict.cost if paid or verdict.cost is None else 0.0,
        "tries": verdict.tries if paid else 0,
        "paid": paid,
        "cut": unit.ask.cut,
        "error": verdict.error,
    }
