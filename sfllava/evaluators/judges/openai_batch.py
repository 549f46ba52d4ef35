"""A provider's Batch API: requests are uploaded as files, and later calls collect the verdicts, even days later.

Each batch is recorded in verdicts-NAME.json before it is submitted. If the process is killed before it has recorded the
batch's id, the next call finds the batch by a token, so nothing is paid for twice.
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

from sfllava.evaluators.judges.base import BatchRun, JudgeError, JudgeRequest, failed_verdict
from sfllava.evaluators.judges.openai import OpenAIJudge
from sfllava.evaluators.judges.openai_errors import as_completion, hide
from sfllava.types import Verdict

log = logging.getLogger(__name__)
_ENDED = ("completed", "expired", "cancelled", "failed")
_SEARCHED = 1000
"""Most batches of an account among which a lost one is searched."""


@dataclass
class BatchClient:
    """How to use the Batch API.

    Attributes:
        wait: wait until all batches have ended.
        poll_seconds: pause between two looks at the batches.
        most_requests: the provider's limit on the requests of one file.
        most_bytes: the provider's limit on the size of one file.
    """

    wait: bool = False
    poll_seconds: float = 60.0
    most_requests: int = 50_000
    most_bytes: int = 150_000_000

    async def step(self, judge: OpenAIJudge, run: BatchRun) -> None:
        """Collect batches that have ended and submit open requests; with `wait`, continue until all have ended.

        Raises:
            JudgeError: The judge has no Batch API, or the API failed.
        """
        if not isinstance(judge, OpenAIJudge):
            raise JudgeError(f"{judge.name} has no Batch API; it is for the openai judge")
        import openai

        try:
            # the client itself retries calls that change nothing
            client, patient = judge.client(), judge.client().with_options(max_retries=5)
            await self._find_lost(patient, run)
            await self._collect(patient, judge, run)
            await self._submit(client, patient, judge, run)
            while self.wait and run.waiting():
                await asyncio.sleep(self.poll_seconds)
                await self._collect(patient, judge, run)
        except openai.OpenAIError as error:
            raise JudgeError(f"the Batch API: {type(error).__name__}: {hide(str(error))[:300]}") from None
        finally:
            await judge.close()

    async def _find_lost(self, client: Any, run: BatchRun) -> None:
        """Find batches without a recorded id by their tokens; drop entries whose batch was never made."""
        lost = {entry["token"]: entry for entry in run.batches if not entry["id"]}
        if not lost:
            return
        looked = 0
        async for batch in client.batches.list(limit=100):
            if entry := lost.pop((batch.metadata or {}).get("sfllava"), None):
                entry["id"] = batch.id
            looked += 1
            if not lost or looked >= _SEARCHED:
                break
        run.batches[:] = [entry for entry in run.batches if entry["token"] not in lost]
        run.save()

    async def _submit(self, client: Any, patient: Any, judge: OpenAIJudge, run: BatchRun) -> None:
        waiting = run.waiting()
        requests = {content: r for content, r in run.open_requests().items() if content not in waiting}
        for contents, data in self._files(judge, requests):
            entry = {
                "token": uuid.uuid4().hex, "id": None, "status": "new", "collected": False, "contents": contents,
                "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
            }  # fmt: skip
            file = await patient.files.create(file=("requests.jsonl", io.BytesIO(data)), purpose="batch")
            run.batches.append(entry)
            run.save()
            batch = await client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"sfllava": entry["token"]},
            )
            entry |= {"id": batch.id, "status": batch.status}
            run.save()
            log.info("%s: batch %s of %d requests submitted", judge.name, batch.id, len(contents))

    def _files(self, judge: OpenAIJudge, requests: dict[str, JudgeRequest]) -> Iterator[tuple[list[str], bytes]]:
        """Pack requests into files within the provider's limits: (contents, file)."""
        contents, lines, size = [], [], 0
        for content, request in requests.items():
            call = {
                "custom_id": content, "method": "POST", "url": "/v1/chat/completions", "body": judge.body(request),
            }  # fmt: skip
            line = json.dumps(call).encode() + b"\n"
            if contents and (len(contents) >= self.most_requests or size + len(line) > self.most_bytes):
                yield contents, b"".join(lines)
                contents, lines, size = [], [], 0
            contents.append(content)
            lines.append(line)
            size += len(line)
        if contents:
            yield contents, b"".join(lines)

    async def _collect(self, client: Any, judge: OpenAIJudge, run: BatchRun) -> None:
        for entry in run.batches:
            if entry["collected"]:
                continue
            batch = await client.batches.retrieve(entry["id"])
            entry["status"] = batch.status
            if batch.status in _ENDED:
                wanted = run.open_requests()
                requests = {content: wanted[content] for content in entry["contents"] if content in wanted}
                # one write: a killed process has all of a batch's verdicts, or collects them all again
                run.write(await _verdicts(client, judge, batch, requests))
                entry["collected"] = True
            run.save()
            log.info("%s: batch %s is %s", judge.name, entry["id"], batch.status)


async def _verdicts(
    client: Any, judge: OpenAIJudge, batch: Any, requests: dict[str, JudgeRequest]
) -> dict[str, Verdict]:
    """One verdict per request of a batch that has ended, by content."""
    verdicts: dict[str, Verdict] = {}
    for name in (batch.output_file_id, batch.error_file_id):
        if name:
            for content, verdict in _read(judge, (await client.files.content(name)).text, requests):
                verdicts.setdefault(content, verdict)  # a repeated line has the same verdict
    errors = [e.message for e in (batch.errors.data if batch.errors else None) or []]
    reason = f"batch {batch.status}: " + hide("; ".join(map(str, errors)) or "no reply to this request")
    for content in requests:
        verdicts.setdefault(content, failed_verdict(judge, reason, tries=0))
    return verdicts


def _read(judge: OpenAIJudge, text: str, requests: dict[str, JudgeRequest]) -> Iterator[tuple[str, Verdict]]:
    """(content, verdict) of each valid line of a result file."""
    for line in text.split("\n"):  # splitlines would also split inside texts
        try:
            value = json.loads(line)
            content, reply = value["custom_id"], value.get("response") or {}
            request = requests.get(content)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # its request counts as one without a reply
        if request is None or not isinstance(reply, dict):
            continue
        try:
            if value.get("error") or reply.get("status_code") != 200:
                body = reply.get("body") or {}
                error = value.get("error") or (body.get("error") if isinstance(body, dict) else body)
                raise ValueError(hide(str(error.get("message") if isinstance(error, dict) else error)))
            yield content, judge.read(request, as_completion(reply.get("body")))
        except ValueError as error:
            yield content, failed_verdict(judge, f"batch line, HTTP {reply.get('status_code')}: {error}", tries=0)
