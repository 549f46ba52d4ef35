"""A judge on any server with OpenAI's chat completions API, through the official client.

OPENAI_API_KEY, OPENAI_ORG and OPENAI_BASE_URL come only from the environment; no row, error or log shows them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sfllava.evaluators.judges.base import (
    MAX_CHARACTERS,
    Judge,
    JudgeError,
    JudgeKind,
    JudgeOptions,
    JudgeRequest,
    failed_verdict,
)
from sfllava.evaluators.judges.openai_errors import (
    ENVIRONMENT,
    PARAMETERS,
    RejectedError,
    RetryableError,
    as_completion,
    classify,
    hide,
    message_of,
)
from sfllava.evaluators.judges.reply import read_verdict
from sfllava.evaluators.judges.rubric import Rubric
from sfllava.types import Verdict

log = logging.getLogger(__name__)
_LONGEST_WAIT = 300.0
"""Seconds; if a server asks for a longer pause, the request is left for the next call."""
_UNREADABLE_TRIES = 2
_CONNECTIONS = 8
"""Connections per client."""


class OpenAIJudge(Judge):
    """Grades with a model on a server.

    A server that does not support `temperature` is asked without it, and one that wants `max_completion_tokens` instead
    of `max_tokens` gets that. Every request limits its reply: a server that supports neither is a JudgeError.

    Args:
        model: the server's exact name of a model, preferably a dated one.
        name: name of the verdict file; made of the model's name by default.
        concurrency: requests at a time.
        seconds: time limit of one request.
        tries: requests for one verdict, of which at most two may be unreadable replies.
        first_delay: seconds before the second try; the delay doubles, up to a minute. Retry-After takes precedence.
        structured: request replies that follow the JSON schema, unless the server does not support that.
        max_reply_tokens: most tokens of a reply.
        price: US dollars per million prompt and reply tokens.

    Raises:
        JudgeError: An argument is out of range.
    """

    paid, batch = True, 1

    def __init__(
        self,
        model: str,
        name: str = "",
        *,
        concurrency: int = 16,
        seconds: float = 60.0,
        tries: int = 8,
        first_delay: float = 0.5,
        structured: bool = True,
        max_reply_tokens: int = 200,
        price: tuple[float, float] | None = None,
    ) -> None:
        if not model:
            raise JudgeError("the openai judge needs the exact name of a model: two versions of one differ by points")
        if concurrency < 1 or tries < 1 or seconds <= 0 or max_reply_tokens < 1:
            raise JudgeError("concurrency, tries, seconds and max_reply_tokens must be above 0")
        if price and not all(0 <= p < math.inf for p in price):
            raise JudgeError(f"prices must be 0 or more, got {price}")
        self.model, self.name = model, name or f"openai-{re.sub(r'[^A-Za-z0-9.-]+', '-', model).strip('-.')}"
        self.concurrency, self.price = concurrency, price
        self._seconds, self._tries, self._first_delay = seconds, tries, first_delay
        self._max_reply_tokens = max_reply_tokens
        self._unsupported: frozenset[str] = frozenset() if structured else frozenset({"response_format"})
        self._clients: list[Any] = []
        self._sent = 0

    @property
    def identity(self) -> dict[str, Any]:
        limits = {"max_reply_tokens": self._max_reply_tokens, "longest_text": MAX_CHARACTERS}
        return {"judge": "openai", "model": self.model, "temperature": 0, **limits}

    def check(self, rubric: Rubric) -> None:
        return None

    def tokens(self, request: JudgeRequest) -> tuple[int, int]:
        # English has more than four bytes per token; with three the estimate is rather too high
        return sum(len(text.encode()) for text in request.messages()) // 3 + 64, self._max_reply_tokens

    def client(self) -> Any:
        """Return one of several official clients; their own retries are off, since `grade` retries.

        A client searches all of its connections for every request, which took a third of the time at 64 connections.
        """
        if len(self._clients) < -(-self.concurrency // _CONNECTIONS):
            self._clients.append(self._new_client())
        self._sent += 1
        return self._clients[self._sent % len(self._clients)]

    def _new_client(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise JudgeError("the openai judge needs the openai package: pip install 'sfllava[judge]'") from error
        key, organization, url = (os.environ.get(name, "").strip() or None for name in ENVIRONMENT)
        if not key:
            raise JudgeError("the openai judge needs OPENAI_API_KEY (any text for a server that wants none)")
        try:
            return openai.AsyncOpenAI(
                api_key=key, organization=organization, base_url=url, max_retries=0, timeout=self._seconds
            )
        except Exception as error:
            raise JudgeError(f"the openai client cannot be made: {hide(str(error))}") from error

    async def close(self) -> None:
        clients, self._clients = self._clients, []
        for client in clients:
            await client.close()

    async def grade(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        return [await self._grade(request) for request in requests]

    def body(self, request: JudgeRequest, unsupported: frozenset[str] | None = None) -> dict[str, Any]:
        """Build the body of a request, without the parameters that the server is known not to support."""
        unsupported = self._unsupported if unsupported is None else unsupported
        system, user = request.messages()
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        }
        if "temperature" not in unsupported:
            body["temperature"] = 0
        # newer models call the limit differently; without a limit the cost would have no bound
        body["max_completion_tokens" if "max_tokens" in unsupported else "max_tokens"] = self._max_reply_tokens
        if "response_format" not in unsupported:
            schema = {"name": "verdict", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _grade(self, request: JudgeRequest) -> Verdict:
        """Get one verdict, with as many requests as that takes."""
        unsupported, unreadable, used = self._unsupported, 0, (0, 0)
        reason = "never asked"
        for attempt in range(self._tries):
            wait = min(60.0, self._first_delay * 2**attempt) * random.uniform(0.5, 1)
            try:
                body = self.body(request, unsupported)
                reply = await self._send(body)
            except RejectedError as rejected:
                name = self._omittable(rejected, body, unsupported)
                if name is None:  # only this request is at fault, for example its prompt is too long
                    return self._failed(rejected.reason, attempt + 1, used)
                reason, unsupported = rejected.reason, unsupported | {name}
                continue
            except RetryableError as error:
                reason = error.reason
                if error.wait is not None and error.wait > _LONGEST_WAIT:
                    reason = f"{reason}; the server wants a pause of {error.wait:.0f} s"
                    break
                # never shorter than the server's pause; slightly longer, so that not all requests return at once
                wait = wait if error.wait is None else error.wait + random.uniform(0, min(wait, 1))
            else:
                self._learn(unsupported)
                verdict = self.read(request, reply, used, attempt + 1)
                used = verdict.tokens
                if verdict.error is None or verdict.parsed or unreadable + 1 >= _UNREADABLE_TRIES:
                    return verdict
                unreadable += 1
                reason, wait = verdict.error, 0.0
            if attempt + 1 < self._tries:
                await asyncio.sleep(wait)
        return self._failed(f"{reason} (try {attempt + 1})", attempt + 1, used)

    def _omittable(self, rejected: RejectedError, body: dict[str, Any], unsupported: frozenset[str]) -> str | None:
        """The parameter of a rejected request that the next try can omit; None if there is none."""
        candidates = set(PARAMETERS.values()) & body.keys() - unsupported
        name = next((name for name in rejected.unsupported if name in candidates), None)
        if name == "max_completion_tokens" and "max_tokens" not in self._unsupported:
            raise JudgeError(
                "the judge's server takes neither max_tokens nor max_completion_tokens, so nothing limits the "
                f"length and cost of its replies: {rejected.reason}"
            ) from None
        return name

    def _failed(self, reason: str, tries: int, used: tuple[int, int]) -> Verdict:
        return failed_verdict(self, reason, tries=tries, tokens=used, cost=self.cost(used))

    def read(
        self, request: JudgeRequest, reply: dict[str, Any], used: tuple[int, int] = (0, 0), tries: int = 1
    ) -> Verdict:
        """Read the verdict from a completion; raises nothing.

        Args:
            request: what was asked.
            reply: the completion, checked by `as_completion`.
            used: prompt and reply tokens of earlier tries.
            tries: requests so far, this one included.

        Returns:
            The verdict; `parsed` is False if another try may help.
        """
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens = (used[0] + _count(usage.get("prompt_tokens")), used[1] + _count(usage.get("completion_tokens")))
        choice = reply["choices"][0]
        message = choice["message"]
        text = message.get("content")
        text = hide(text) if isinstance(text, str) else ""
        about = {
            "tokens": tokens, "cost": self.cost(tokens), "tries": tries, "reply": text[:2000],
            "response_model": hide(str(reply["model"]))[:200],
        }  # fmt: skip
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            reason = f"refused: {hide(str(message.get('refusal') or 'content filter'))}"
            # the refusal itself was readable, and the same request would be refused again
            return replace(failed_verdict(self, reason, **about), parsed=True)
        try:
            found = read_verdict(text, request)
        except ValueError as error:
            cut = " (cut at max_tokens)" if choice.get("finish_reason") == "length" else ""
            return failed_verdict(self, f"unreadable reply{cut}: {error}", **about)
        return Verdict(**found, judge=self.name, model=self.model, **about)

    def cost(self, tokens: tuple[int, int]) -> float | None:
        """US dollars for (prompt, reply) tokens; None without known prices."""
        return None if self.price is None else sum(n * p for n, p in zip(tokens, self.price)) / 1e6

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request and check the completion. Raises RetryableError, RejectedError or JudgeError."""
        import openai

        try:
            # the time limit covers the whole request: a slowly trickling body must not occupy a worker forever
            async with asyncio.timeout(self._seconds):
                # the body as text: parsing into the client's models would take longer than the request
                raw = await self.client().post("/chat/completions", cast_to=str, body=body)
        except (TimeoutError, openai.APITimeoutError):
            raise RetryableError(f"no reply within {self._seconds:g} s") from None
        except openai.APIStatusError as error:
            raise classify(
                error.status_code, hide(message_of(error)), error.code, error.response.headers, error.param
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise RetryableError(f"connection failed: {type(cause).__name__}: {hide(str(cause))[:200]}") from None
        except openai.OpenAIError as error:
            raise RetryableError(f"{type(error).__name__}: {hide(str(error))[:200]}") from None
        try:
            return as_completion(json.loads(raw))
        except (ValueError, RecursionError):
            raise RetryableError(f"not a chat completion: {hide(str(raw))[:80]!r}") from None

    def _learn(self, unsupported: frozenset[str]) -> None:
        """Omit from all later requests what the server accepted this one without."""
        if new := unsupported - self._unsupported:
            log.warning("%s: the server does not support %s; requests omit it", self.name, ", ".join(sorted(new)))
            self._unsupported |= new


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _make(name: str, options: JudgeOptions) -> Judge:
    if not options.model:
        raise JudgeError("the openai judge needs --model, the exact name of a model")
    limit = {"max_reply_tokens": options.max_reply_tokens} if options.max_reply_tokens else {}
    return OpenAIJudge(
        options.model, options.name, concurrency=options.concurrency, seconds=options.seconds, tries=options.tries,
        structured=options.structured, price=options.price, **limit,
    )  # fmt: skip


JUDGE = JudgeKind(("openai",), "openai: any such server (OPENAI_API_KEY, OPENAI_BASE_URL)", _make, has_batch_api=True)
