"""A judge on any server that speaks OpenAI's chat completions, through the official client.

OPENAI_API_KEY, OPENAI_ORG and OPENAI_BASE_URL come from the environment alone; no row, error or log shows them.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import math
import os
import random
import re
from collections.abc import Sequence
from typing import Any

from sfllava.evaluators.judges.base import MAX_CHARACTERS, Judge, JudgeError, JudgeRequest, Rubric, failed_verdict
from sfllava.evaluators.judges.reply import read_reply
from sfllava.types import Verdict

log = logging.getLogger(__name__)
_ENVIRONMENT = ("OPENAI_API_KEY", "OPENAI_ORG", "OPENAI_BASE_URL")
_KEYS = re.compile(r"\b(?:sk|org|sess)-[\w*.-]{6,}")  # as a server repeats them, half hidden
# what a request may go without, as errors name it
_PARAMETERS = {name: name for name in ("temperature", "max_tokens", "max_completion_tokens", "response_format")}
_PARAMETERS["json_schema"] = "response_format"
_UNSUPPORTED_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_UNSUPPORTED_WORDS = re.compile(
    r"un(?:supported|known|recogni[sz]ed)|not (?:supported|permitted|allowed|recogni[sz]ed)|n[o']t support|"
    r"unexpected (?:field|keyword|parameter|argument)|extra (?:inputs|fields)",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(r"context.?(?:length|window|size)|too (?:long|large|many)|exceeds", re.IGNORECASE)
_LONGEST_WAIT = 300.0
"""Seconds; a server that wants a longer pause gets its request on the next call."""
_UNREADABLE_TRIES = 2
_CONNECTIONS = 8
"""Of one client."""


class OpenAIJudge(Judge):
    """`model` is the server's exact name of a model, best a dated one.

    seconds: what one request may take. tries: requests for one verdict, of which two may be replies that cannot be
    read. first_delay: seconds before the second try; it doubles, up to a minute, and Retry-After goes before it.
    structured: ask for the reply's JSON schema, unless the server does not support that. price: US dollars per million
    prompt and reply tokens.

    A server that does not support `temperature` is asked without it, and one that wants `max_completion_tokens` for
    `max_tokens` gets that. Every request limits its reply: a server that supports neither is a JudgeError.
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
        self._asked = 0

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "judge": "openai",
            "model": self.model,
            "temperature": 0,
            "max_reply_tokens": self._max_reply_tokens,
            "longest_text": MAX_CHARACTERS,
        }

    def check(self, rubric: Rubric) -> None:
        return None

    def tokens(self, ask: JudgeRequest) -> tuple[int, int]:
        # English has above four bytes a token; three, so that the estimate is rather too high
        return sum(len(text.encode()) for text in ask.messages()) // 3 + 64, self._max_reply_tokens

    def client(self) -> Any:
        """An official client; its own retries are off, since those here know more.

        There are several, since each looks through all its connections for every request: at 64 that was a third of
        the time.
        """
        if len(self._clients) < -(-self.concurrency // _CONNECTIONS):
            self._clients.append(self._new_client())
        self._asked += 1
        return self._clients[self._asked % len(self._clients)]

    def _new_client(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise JudgeError("the openai judge needs the openai package: pip install 'sfllava[judge]'") from error
        key, organization, url = (os.environ.get(name, "").strip() or None for name in _ENVIRONMENT)
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

    async def grade(self, asks: Sequence[JudgeRequest]) -> list[Verdict]:
        return [await self._grade(ask) for ask in asks]

    def body(self, ask: JudgeRequest, unsupported: frozenset[str] | None = None) -> dict[str, Any]:
        """The request of an ask, without the parameters that the server is known not to support."""
        unsupported = self._unsupported if unsupported is None else unsupported
        system, user = ask.messages()
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        }
        if "temperature" not in unsupported:
            body["temperature"] = 0
        # newer models know the limit by another name; without one nothing would bound the cost
        body["max_completion_tokens" if "max_tokens" in unsupported else "max_tokens"] = self._max_reply_tokens
        if "response_format" not in unsupported:
            schema = {"name": "verdict", "strict": True, "schema": ask.rubric.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _grade(self, ask: JudgeRequest) -> Verdict:
        """One verdict, however many requests that takes."""
        unsupported, unreadable, used = self._unsupported, 0, (0, 0)
        reason = "never asked"
        for attempt in range(self._tries):
            wait = min(60.0, self._first_delay * 2**attempt) * random.uniform(0.5, 1)
            try:
                body = self.body(ask, unsupported)
                reply = await self._send(body)
            except _Rejected as rejected:
                known = set(_PARAMETERS.values()) & body.keys() - unsupported
                name = next((name for name in rejected.unsupported if name in known), None)
                if name is None:  # this request alone, such as a prompt that is too long
                    return failed_verdict(self, rejected.reason, tries=attempt + 1, tokens=used, cost=self.cost(used))
                if name == "max_completion_tokens" and "max_tokens" not in self._unsupported:
                    raise JudgeError(
                        "the judge's server takes neither max_tokens nor max_completion_tokens, so nothing limits the "
                        f"length and cost of its replies: {rejected.reason}"
                    ) from None
                reason, unsupported = rejected.reason, unsupported | {name}
                continue
            except _Again as again:
                reason = again.reason
                if again.wait is not None and again.wait > _LONGEST_WAIT:
                    reason = f"{reason}; the server wants a pause of {again.wait:.0f} s"
                    break
                # the server's pause is the least; a little more, so that not all come back at once
                wait = wait if again.wait is None else again.wait + random.uniform(0, min(wait, 1))
            else:
                self._learn(unsupported)
                verdict = self.read(ask, reply, used, attempt + 1)
                used = verdict.tokens
                if verdict.error is None or verdict.parsed or unreadable + 1 >= _UNREADABLE_TRIES:
                    return verdict
                unreadable += 1
                reason, wait = verdict.error, 0.0
            if attempt + 1 < self._tries:
                await asyncio.sleep(wait)
        return failed_verdict(
            self, f"{reason} (try {attempt + 1})", tries=attempt + 1, tokens=used, cost=self.cost(used)
        )

    def read(self, ask: JudgeRequest, reply: dict[str, Any], used: tuple[int, int] = (0, 0), tries: int = 1) -> Verdict:
        """A completion -> its verdict; `parsed` is False where asking again may help. Raises nothing."""
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        spent = tuple(_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        tokens = (used[0] + spent[0], used[1] + spent[1])
        about = {
            "tokens": tokens,
            "cost": self.cost(tokens),
            "tries": tries,
            "response_model": hide(str(reply["model"]))[:200],
        }
        choice = reply["choices"][0]
        message = choice["message"]
        text = message.get("content")
        text = hide(text) if isinstance(text, str) else ""
        about["reply"] = text[:2000]
        error = None
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            error = f"refused: {hide(str(message.get('refusal') or 'content filter'))}"
        else:
            try:
                correct, score = read_reply(text, ask.rubric.decides)
                return Verdict(correct, score=score, judge=self.name, model=self.model, **about)
            except ValueError as problem:
                cut = " (cut at max_tokens)" if choice.get("finish_reason") == "length" else ""
                error = f"unreadable reply{cut}: {problem}"
        verdict = failed_verdict(self, error, **about)
        # a refusal was read well enough: the same question would be refused again
        return Verdict(**{**vars(verdict), "parsed": True}) if error.startswith("refused") else verdict

    def cost(self, tokens: tuple[int, int]) -> float | None:
        """US dollars, where the prices are known."""
        return None if self.price is None else sum(n * p for n, p in zip(tokens, self.price)) / 1e6

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        """One request -> the completion, checked to be one. Raises _Again, _Rejected or JudgeError."""
        import openai

        try:
            # the time limit is for the whole request: a body that trickles must not hold a place for ever
            async with asyncio.timeout(self._seconds):
                # the body as text: the client's models would cost more time than the request
                raw = await self.client().post("/chat/completions", cast_to=str, body=body)
        except (TimeoutError, openai.APITimeoutError):
            raise _Again(f"no reply within {self._seconds:g} s") from None
        except openai.APIStatusError as error:
            raise classify(
                error.status_code, hide(_said(error)), error.code, error.response.headers, error.param
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _Again(f"connection failed: {type(cause).__name__}: {hide(str(cause))[:200]}") from None
        except openai.OpenAIError as error:
            raise _Again(f"{type(error).__name__}: {hide(str(error))[:200]}") from None
        try:
            return as_completion(json.loads(raw))
        except (ValueError, RecursionError):
            raise _Again(f"not a chat completion: {hide(str(raw))[:80]!r}") from None

    def _learn(self, unsupported: frozenset[str]) -> None:
        """Leave out for all requests what the server took this one without."""
        if new := unsupported - self._unsupported:
            log.warning("%s: the server does not support %s; requests go without", self.name, ", ".join(sorted(new)))
            self._unsupported |= new


class _Again(Exception):
    """A request that failed in a way that may pass."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        self.reason, self.wait = reason, wait


class _Rejected(Exception):
    """A request that the server will not take; `unsupported` names the parameters that it may want to be without."""

    def __init__(self, reason: str, unsupported: Sequence[str] = ()) -> None:
        self.reason, self.unsupported = reason, unsupported


def hide(text: str) -> str:
    """Text without the secrets of the environment, and what looks like a key."""
    for name in _ENVIRONMENT:
        if value := os.environ.get(name, "").strip():
            # whole, without its end, the host alone; a key with a line end in it is shown in pieces
            for part in sorted({value.rstrip("/"), re.sub(r"^\w+://|/.*$", "", value), *value.split()}, key=len)[::-1]:
                text = text.replace(part, "[hidden]") if len(part) >= 8 else text
    return _KEYS.sub("[hidden]", text)


def as_completion(value: Any) -> dict[str, Any]:
    """What a server sent, where it is a chat completion; ValueError where it is not."""
    try:
        if not isinstance(value["choices"][0]["message"], dict):
            raise TypeError("message")
    except (TypeError, LookupError) as error:
        raise ValueError("not a chat completion") from error
    return {"model": "", **value}


def classify(status: int, reason: str, code: str | None = None, headers: Any = None, param: Any = None) -> Exception:
    """What an HTTP error means: again later, not like this, or not at all."""
    said = " ".join(reason.split())
    reason = f"HTTP {status}: {said[:300]}"
    if status in (401, 403, 404) or code == "insufficient_quota":
        return JudgeError(f"the judge's server says {reason}")
    if status in (408, 409, 429) or status >= 500:
        return _Again(reason, _retry_after(headers or {}))
    return _Rejected(reason, _unsupported(said, code, param))


def _unsupported(said: str, code: str | None, param: Any) -> list[str]:
    """The parameters that an error says are not supported, the one that it names first at the front."""
    plain = code in _UNSUPPORTED_CODES
    if not plain and _TOO_LONG.search(said):
        return []
    if isinstance(param, str) and param:  # such as response_format.json_schema; a prompt's error names messages
        named = [param.split(".")[0]]
    else:
        named = [_PARAMETERS[name] for name in re.findall("|".join(_PARAMETERS), said)]
    if plain or _UNSUPPORTED_WORDS.search(said):
        return named
    # of the schema servers complain in many words, and to go without it costs nothing
    return [name for name in named if name == "response_format"]


def _said(error: Any) -> str:
    body = error.body
    return str(body["message"] if isinstance(body, dict) and "message" in body else error.message)


def _retry_after(headers: Any) -> float | None:
    """Seconds, from milliseconds, seconds or a date; None where the server says nothing that makes sense."""
    value, millis = headers.get("retry-after"), headers.get("retry-after-ms")
    try:
        seconds = float(millis) / 1000 if millis else float(value)
    except (TypeError, ValueError):
        try:
            # from the server's own clock, where it tells it: ours may go wrong
            now = headers.get("date") or email.utils.formatdate(usegmt=True)
            until, now = map(email.utils.parsedate_to_datetime, (value, now))
            seconds = (until - now).total_seconds()
        except (TypeError, ValueError, AttributeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
