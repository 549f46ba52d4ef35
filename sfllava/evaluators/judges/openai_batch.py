"""A provider's Batch API: requests go up as files, and verdicts are collected on later calls, days later if need be.

What was submitted stands in verdicts-NAME.json before it is: a process killed between asking for a batch and writing
its id down finds the batch again by a token, and nothing is paid for twice.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sfllava.evaluators.judges.base import JudgeError, JudgeRequest, failed_verdict
from sfllava.evaluators.judges.openai import OpenAIJudge, as_completion, hide
from sfllava.runs.judging_run import JudgingRun
from sfllava.types import Verdict

log = logging.getLogger(__name__)
_ENDED = ("completed", "expired", "cancelled", "failed")
_LOOKED_AT = 1000
"""Batches of an account among which one is looked for."""


@dataclass
class BatchClient:
    """How to go through the Batch API: wait for what is submitted or not, and the provider's limits on one file."""

    wait: bool = False
    poll_seconds: float = 60.0
    most_requests: int = 50_000
    most_bytes: int = 150_000_000

    async def step(self, judge: OpenAIJudge, work: JudgingRun) -> None:
        """Collect what has ended, submit what is not under way, and with `wait` go on until all has ended."""
        if not isinstance(judge, OpenAIJudge):
            raise JudgeError(f"{judge.name} has no Batch API; it is for the openai judge")
        import openai

        try:
            # requests that change nothing are tried again by the client itself
            client, patient = judge.client(), judge.client().with_options(max_retries=5)
            await self._find_lost(patient, work)
            await self._collect(patient, judge, work)
            await self._submit(client, patient, judge, work)
            while self.wait and work.file.waiting():
                await asyncio.sleep(self.poll_seconds)
                await self._collect(patient, judge, work)
        except openai.OpenAIError as error:
            raise JudgeError(f"the Batch API: {type(error).__name__}: {hide(str(error))[:300]}") from None
        finally:
            await judge.close()

    async def _find_lost(self, client: Any, work: JudgingRun) -> None:
        """Entries without an id: their batch is found by its token, or was never made and is forgotten."""
        lost = {entry["token"]: entry for entry in work.file.state["batches"] if not entry["id"]}
        if not lost:
            return
        looked = 0
        async for batch in client.batches.list(limit=100):
            if entry := lost.pop((batch.metadata or {}).get("sfllava"), None):
                entry["id"] = batch.id
            looked += 1
            if not lost or looked >= _LOOKED_AT:
                break
        work.file.state["batches"] = [e for e in work.file.state["batches"] if e["token"] not in lost]
        work.file.save()

    async def _submit(self, client: Any, patient: Any, judge: OpenAIJudge, work: JudgingRun) -> None:
        waiting = work.file.waiting()
        asks = {c: units[0].ask for c, units in work.todo.items() if units[0].ask and c not in waiting}
        for contents, data in self._files(judge, asks):
            entry = {
                "token": uuid.uuid4().hex, "id": None, "status": "new", "collected": False, "contents": contents,
                "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
            }  # fmt: skip
            file = await patient.files.create(file=("requests.jsonl", io.BytesIO(data)), purpose="batch")
            work.file.state["batches"].append(entry)
            work.file.save()
            batch = await client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"sfllava": entry["token"]},
            )
            entry |= {"id": batch.id, "status": batch.status}
            work.file.save()
            log.info("%s: batch %s of %d requests submitted", judge.name, batch.id, len(contents))

    def _files(self, judge: OpenAIJudge, asks: dict[str, JudgeRequest]) -> Iterator[tuple[list[str], bytes]]:
        contents, lines, size = [], [], 0
        for content, ask in asks.items():
            request = {
                "custom_id": content, "method": "POST", "url": "/v1/chat/completions", "body": judge.body(ask),
            }  # fmt: skip
            line = json.dumps(request).encode() + b"\n"
            if contents and (len(contents) >= self.most_requests or size + len(line) > self.most_bytes):
                yield contents, b"".join(lines)
                contents, lines, size = [], [], 0
            contents.append(content)
            lines.append(line)
            size += len(line)
        if contents:
            yield contents, b"".join(lines)

    async def _collect(self, client: Any, judge: OpenAIJudge, work: JudgingRun) -> None:
        for entry in work.file.state["batches"]:
            if entry["collected"]:
                continue
            batch = await client.batches.retrieve(entry["id"])
            entry["status"] = batch.status
            if batch.status in _ENDED:
                verdicts: dict[str, Verdict] = {}
                asks = {c: work.todo[c][0].ask for c in entry["contents"] if c in work.todo}
                for name in (batch.output_file_id, batch.error_file_id):
                    if name:
                        text = (await client.files.content(name)).text
                        for content, verdict in _read(judge, text, asks):
                            # a line that came twice is the same verdict
                            verdicts.setdefault(content, verdict)
                errors = [e.message for e in (batch.errors.data if batch.errors else None) or []]
                reason = f"batch {batch.status}: " + hide("; ".join(map(str, errors)) or "no reply to this request")
                for content in asks:
                    verdicts.setdefault(content, failed_verdict(judge, reason, tries=0))
                # one write: a process killed here has all of a batch, or collects all of it again
                work.file.append([row for content, v in verdicts.items() for row in work.rows_of(content, v)])
                entry["collected"] = True
            work.file.save()
            log.info("%s: batch %s is %s", judge.name, entry["id"], batch.status)


def _read(judge: OpenAIJudge, text: str, asks: dict[str, Any]) -> Iterator[tuple[str, Verdict]]:
    for line in text.split("\n"):  # splitlines would split inside texts too
        try:
            value = json.loads(line)
            content, reply = value["custom_id"], value.get("response") or {}
            ask = asks.get(content)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # its request is one without a reply
        if ask is None or not isinstance(reply, dict):
            continue
        try:
            if value.get("error") or reply.get("status_code") != 200:
                body = reply.get("body") or {}
                said = value.get("error") or (body.get("error") if isinstance(body, dict) else body)
                raise ValueError(hide(str(said.get("message") if isinstance(said, dict) else said)))
            yield content, judge.read(ask, as_completion(reply.get("body")))
        except ValueError as error:
            yield content, failed_verdict(judge, f"batch line, HTTP {reply.get('status_code')}: {error}", tries=0)
