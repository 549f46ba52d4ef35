"""What an OpenAI-compatible server answered: completions, errors and what to do about them, and no secrets.

Every text from a server passes `hide` before it reaches a row, an error or a log.
"""

from __future__ import annotations

import email.utils
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from sfllava.evaluators.judges.base import JudgeError

ENVIRONMENT = ("OPENAI_API_KEY", "OPENAI_ORG", "OPENAI_BASE_URL")
_KEYS = re.compile(r"\b(?:sk|org|sess)-[\w*.-]{6,}")  # as servers quote them, partly masked
# parameters that a request can omit, as error messages name them
PARAMETERS = {name: name for name in ("temperature", "max_tokens", "max_completion_tokens", "response_format")}
PARAMETERS["json_schema"] = "response_format"
_UNSUPPORTED_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_UNSUPPORTED_WORDS = re.compile(
    r"un(?:supported|known|recogni[sz]ed)|not (?:supported|permitted|allowed|recogni[sz]ed)|n[o']t support|"
    r"unexpected (?:field|keyword|parameter|argument)|extra (?:inputs|fields)",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(r"context.?(?:length|window|size)|too (?:long|large|many)|exceeds", re.IGNORECASE)


class RetryableError(Exception):
    """A request failed for a reason that may pass; `wait` is the pause in seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        self.reason, self.wait = reason, wait


class RejectedError(Exception):
    """The server refuses a request; `unsupported` names the parameters that it may not support."""

    def __init__(self, reason: str, unsupported: Sequence[str] = ()) -> None:
        self.reason, self.unsupported = reason, unsupported


def hide(text: str) -> str:
    """Replace the secrets of the environment, and all that looks like a key, in a text."""
    for name in ENVIRONMENT:
        if value := os.environ.get(name, "").strip():
            # in full, without a trailing slash, the host alone; a key with a line break in it may appear in pieces
            for part in sorted({value.rstrip("/"), re.sub(r"^\w+://|/.*$", "", value), *value.split()}, key=len)[::-1]:
                text = text.replace(part, "[hidden]") if len(part) >= 8 else text
    return _KEYS.sub("[hidden]", text)


def as_completion(value: Any) -> dict[str, Any]:
    """Check that a server sent a chat completion; raise ValueError if not."""
    try:
        if not isinstance(value["choices"][0]["message"], dict):
            raise TypeError("message")
    except (TypeError, LookupError) as error:
        raise ValueError("not a chat completion") from error
    return {"model": "", **value}


def classify(status: int, reason: str, code: str | None = None, headers: Any = None, param: Any = None) -> Exception:
    """Decide what an HTTP error means for the next request.

    Args:
        status: the HTTP status.
        reason: the server's message.
        code: the server's error code.
        headers: of the response; they may say how long to wait.
        param: the request's parameter that the error is about.

    Returns:
        RetryableError (try again later), RejectedError (not in this form) or JudgeError (stop).
    """
    message = " ".join(reason.split())
    reason = f"HTTP {status}: {message[:300]}"
    if status in (401, 403, 404) or code == "insufficient_quota":
        return JudgeError(f"the judge's server says {reason}")
    if status in (408, 409, 429) or status >= 500:
        return RetryableError(reason, _retry_after(headers or {}))
    return RejectedError(reason, _unsupported(message, code, param))


def _unsupported(message: str, code: str | None, param: Any) -> list[str]:
    """The parameters that an error calls unsupported, in the order of its message."""
    plain = code in _UNSUPPORTED_CODES
    if not plain and _TOO_LONG.search(message):
        return []
    if isinstance(param, str) and param:  # such as response_format.json_schema; a prompt's error names messages
        named = [param.split(".")[0]]
    else:
        named = [PARAMETERS[name] for name in re.findall("|".join(PARAMETERS), message)]
    if plain or _UNSUPPORTED_WORDS.search(message):
        return named
    # servers reject the schema in many different words, and omitting it costs nothing
    return [name for name in named if name == "response_format"]


def message_of(error: Any) -> str:
    """The message of an openai status error."""
    body = error.body
    return str(body["message"] if isinstance(body, dict) and "message" in body else error.message)


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, from milliseconds, seconds or a date; None without a valid header."""
    value, millis = headers.get("retry-after"), headers.get("retry-after-ms")
    try:
        seconds = float(millis) / 1000 if millis else float(value)
    except (TypeError, ValueError):
        try:
            # relative to the server's clock if it sends one: the local clock may be wrong
            now = headers.get("date") or email.utils.formatdate(usegmt=True)
            until, now = map(email.utils.parsedate_to_datetime, (value, now))
            seconds = (until - now).total_seconds()
        except (TypeError, ValueError, AttributeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
