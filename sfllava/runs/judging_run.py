"""One judge at work on one run: it grades the items that have no verdict, writes the rows, and counts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.evaluators.judges.base import Judge, JudgeError, JudgeRequest
from sfllava.runs.judge_items import JudgeItem
from sfllava.runs.verdicts import Row, VerdictFile, verdict_key
from sfllava.types import SfllavaError, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgingResult:
    """What a call of `judge` did.

    Attributes:
        path: The verdict file.
        items: All items that the run has to judge; each of the next four counts is a part of them.
        judged: Items with a verdict, from this call or an earlier one.
        failed: Items at which the judge failed in this call.
        no_prediction: Items on which inference failed; they are never sent to a judge.
        waiting: Items in batches that are not collected yet.
        requests: Requests in this call.
        tokens: Prompt and reply tokens in this call.
        cost: US dollars in this call; None without known prices.
        reasons: Why the judge failed, with counts, the most common first.
        response_models: The names that the server gave its models; empty for a judge in this process.
        stopped: Why the call stopped early; empty if it did not.
        by_model: Whether requests go to a model, and take tokens.
    """

    path: Path
    items: int
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
    by_model: bool = True

    @property
    def complete(self) -> bool:
        """Whether every item has a verdict or no prediction."""
        return self.judged + self.no_prediction == self.items

    def __str__(self) -> str:
        left = self.items - self.judged - self.failed - self.no_prediction - self.waiting
        counts = (
            ("judged", self.judged), ("without a prediction", self.no_prediction),
            ("failed at the judge, retried on the next call", self.failed),
            ("waiting for a batch", self.waiting), ("left", left),
        )  # fmt: skip
        lines = [f"{self.path}: {self.items} to judge: " + ", ".join(f"{n} {name}" for name, n in counts if n)]
        paid = f", ${self.cost:,.4f}" if self.cost is not None else ""
        if self.by_model:
            lines.append(f"  this call: {self.requests} requests, {self.tokens[0]:,} + {self.tokens[1]:,} tokens{paid}")
        lines += [f"  failed {count} x: {reason}" for reason, count in list(self.reasons.items())[:5]]
        if self.response_models:
            lines.append(f"  the server called its model {', '.join(self.response_models)}")
        if len(self.response_models) > 1:
            lines.append("  more than one model judged: these verdicts are not comparable")
        return "\n".join([*lines, *([f"  stopped: {self.stopped}"] if self.stopped else [])])


class JudgingRun:
    """The items of a run that have no verdict yet, grouped by content so that equal requests are sent once.

    Args:
        judge: The judge.
        file: The file that the verdicts are written to.
        items: All items of the run.
    """

    def __init__(self, judge: Judge, file: VerdictFile, items: Sequence[JudgeItem]) -> None:
        self.judge, self.file, self.items = judge, file, items
        done = {verdict_key(row): row for row in file.rows()}
        self.judged = len(done)
        self.reasons: Counter[str] = Counter()
        self.response_models = {row.get("served") or "" for row in done.values()}
        self.requests, self.tokens, self.cost = 0, (0, 0), 0.0
        self.stopped = ""
        self.todo: dict[str, list[JudgeItem]] = {}
        for item in items:
            if item.request and item.row_key not in done:
                self.todo.setdefault(item.request.content, []).append(item)

    def copy_known(self, known: Iterable[Row]) -> None:
        """Write the rows of items whose content has a verdict among the rows `known`."""
        copies = []
        for row in known:
            for item in self.todo.pop(row["content"], ()):
                copied = {"key": item.key, "setting": item.setting, "video": item.video, "paid": False, "tries": 0}
                copies.append({**row, **copied, "tokens": [0, 0], "cost": None if row.get("cost") is None else 0.0})
        if copies:
            self.file.append(copies)
            self.judged += len(copies)
            log.info("%s: %d verdicts on equal texts copied", self.judge.name, len(copies))

    def open_requests(self) -> dict[str, JudgeRequest]:
        """Return the requests without a verdict, by content."""
        return {content: items[0].request for content, items in self.todo.items() if items[0].request}

    @property
    def batches(self) -> list[Row]:
        """The batches submitted to a provider's Batch API; call `save` after a change."""
        return self.file.state["batches"]

    def waiting(self) -> set[str]:
        """Return the contents in batches that are not collected yet."""
        return self.file.waiting()

    def save(self) -> None:
        """Write `batches` to disk."""
        self.file.save()

    def write(self, verdicts: Mapping[str, Verdict]) -> None:
        """Write the rows of verdicts, given by content, in one append."""
        self.file.append([row for content, verdict in verdicts.items() for row in self.rows_of(content, verdict)])

    def rows_of(self, content: str, verdict: Verdict) -> list[Row]:
        """Count a verdict, remove its items from `todo`, and return their rows."""
        items = self.todo.pop(content)
        self.requests += verdict.tries
        self.tokens = (self.tokens[0] + verdict.tokens[0], self.tokens[1] + verdict.tokens[1])
        self.cost += verdict.cost or 0.0
        if verdict.error is None:
            self.judged += len(items)
            self.response_models.add(verdict.response_model)
        else:
            self.reasons[verdict.error] += len(items)
        return [_row(item, verdict, paid=i == 0) for i, item in enumerate(items)]

    async def grade_all(self, requests: Sequence[JudgeRequest], limit_cost: float | None, bar: Any) -> None:
        """Grade requests at the judge's concurrency and write each verdict before the next request.

        Args:
            requests: Requests with distinct contents, all in `todo`.
            limit_cost: The most that this call may cost, in US dollars; None for no limit.
            bar: A progress bar that counts verdicts.

        Raises:
            JudgeError: Further requests are pointless. Requests in flight finish first, since they are paid for.
        """
        pool = _GradingPool(self, requests, limit_cost, bar)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.judge.concurrency, len(requests))):
                    group.create_task(pool.work())
        except* Exception as errors:  # the first error says what happened; an ExceptionGroup would hide it
            raise errors.exceptions[0] from None
        finally:
            await self.judge.close()
        if pool.fatal:
            raise pool.fatal

    def result(self) -> JudgingResult:
        """Return the counts so far."""
        waiting = self.file.waiting()
        request = next((item.request for item in self.items if item.request), None)
        return JudgingResult(
            path=self.file.path,
            items=len(self.items),
            judged=self.judged,
            failed=self.reasons.total(),
            no_prediction=sum(item.request is None for item in self.items),
            waiting=sum(len(items) for content, items in self.todo.items() if content in waiting),
            requests=self.requests,
            tokens=self.tokens,
            cost=self.cost if self.judge.price else None,
            reasons=dict(self.reasons.most_common()),
            response_models=tuple(sorted(self.response_models - {""})) if self.judge.paid else (),
            stopped=self.stopped,
            by_model=request is None or any(self.judge.tokens(request)),
        )


class _GradingPool:
    """Workers that share a queue of requests, a limit on the cost, and the decision to stop."""

    def __init__(self, run: JudgingRun, requests: Iterable[JudgeRequest], limit_cost: float | None, bar: Any) -> None:
        self._run, self._queue, self._writer = run, deque(requests), _Writer(run.file)
        self._limit, self._bar = limit_cost, bar
        self._reserved = 0.0  # dollars that requests in flight may cost
        self._failures, self._most_failures = 0, max(20, 2 * run.judge.concurrency)
        self.fatal: SfllavaError | None = None

    async def work(self) -> None:
        """Grade and write until the queue is empty or all workers stop."""
        judge = self._run.judge
        while self._queue and not self.fatal and not self._run.stopped:
            requests = [self._queue.popleft() for _ in range(min(judge.batch, len(self._queue)))]
            cost = estimate_cost(judge, requests)[1] or 0.0
            if self._limit is not None and self._run.cost + self._reserved + cost > self._limit:
                self._run.stopped = f"the next request could exceed the limit of ${self._limit:,.2f}"
                return
            self._reserved += cost
            try:
                verdicts = await judge.grade(requests)
            except JudgeError as error:
                self.fatal = self.fatal or error
                return
            finally:
                self._reserved -= cost
            graded = zip(requests, verdicts, strict=True)
            rows = [row for request, verdict in graded for row in self._run.rows_of(request.content, verdict)]
            await self._writer.write(rows)
            self._bar.update(sum(not row["error"] for row in rows))
            self._count_failures(verdicts)

    def _count_failures(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            self._failures = self._failures + 1 if verdict.error else 0
            if self._failures >= self._most_failures and not self.fatal:
                self.fatal = JudgeError(f"{self._failures} verdicts failed in a row, the last: {verdict.error}")


class _Writer:
    """Combines the rows of many workers into one synced write; rows that arrive during a write wait for the next."""

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


def estimate_cost(judge: Judge, requests: Iterable[JudgeRequest]) -> tuple[tuple[int, int], float | None]:
    """Estimate the most that requests can take.

    Returns:
        The (prompt, reply) tokens, and the cost in US dollars, None if the prices are unknown.
    """
    tokens = [judge.tokens(request) for request in requests]
    total = (sum(t[0] for t in tokens), sum(t[1] for t in tokens))
    return total, None if judge.price is None else sum(n * p for n, p in zip(total, judge.price)) / 1e6


def _row(item: JudgeItem, verdict: Verdict, paid: bool) -> Row:
    assert item.request
    return {
        "key": item.key,
        "setting": item.setting,
        "rubric": item.rubric,
        "video": item.video,
        "content": item.request.content,
        "correct": verdict.correct,
        "score": verdict.score,
        **({} if verdict.chosen is None else {"chosen": verdict.chosen}),
        "reply": verdict.reply,
        "judge": verdict.judge,
        "model": verdict.model,
        "served": verdict.response_model,
        "tokens": list(verdict.tokens) if paid else [0, 0],
        "cost": verdict.cost if paid or verdict.cost is None else 0.0,
        "tries": verdict.tries if paid else 0,
        "paid": paid,
        "cut": item.request.cut,
        "error": verdict.error,
    }
