"""A judge in this process: a causal language model, or the one inside the LLaVA that is loaded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Protocol

from sfllava.evaluators.judges.base import MAX_CHARACTERS, Judge, JudgeRequest, Rubric, failed_verdict
from sfllava.evaluators.judges.reply import read_reply
from sfllava.types import SfllavaError, Verdict


class TextModel(Protocol):
    """What `models.text` makes: greedy replies to (system, user) texts."""

    name: str
    about: dict[str, Any]
    """What tells these weights from others."""
    batch: int

    def replies(
        self, asks: Sequence[tuple[str, str]], max_new_tokens: int
    ) -> list[tuple[str, int, int] | SfllavaError]: ...


class LocalJudge(Judge):
    """Grades with a text model that is passed in; its folder's name is the model's exact name."""

    paid, price, concurrency = False, None, 1

    def __init__(self, model: TextModel, name: str = "", *, max_reply_tokens: int = 64) -> None:
        self._text, self.model, self.batch = model, model.name, model.batch
        self.name = name or f"local-{re.sub(r'[^A-Za-z0-9.-]+', '-', PurePath(model.name).name).strip('-.')}"
        self._max_reply_tokens = max_reply_tokens

    @property
    def identity(self) -> dict[str, Any]:
        # the folder may move; the weights may not change
        about = {"judge": "local", **self._text.about}
        return {**about, "max_reply_tokens": self._max_reply_tokens, "longest_text": MAX_CHARACTERS}

    def check(self, rubric: Rubric) -> None:
        return None

    def tokens(self, ask: JudgeRequest) -> tuple[int, int]:
        return sum(map(len, ask.messages())) // 3, self._max_reply_tokens

    async def grade(self, asks: Sequence[JudgeRequest]) -> list[Verdict]:
        said = await asyncio.to_thread(self._text.replies, [ask.messages() for ask in asks], self._max_reply_tokens)
        return [self._verdict(ask, reply) for ask, reply in zip(asks, said, strict=True)]

    async def close(self) -> None:
        return None

    def _verdict(self, ask: JudgeRequest, reply: tuple[str, int, int] | SfllavaError) -> Verdict:
        if isinstance(reply, SfllavaError):
            return failed_verdict(self, str(reply))
        about: dict[str, Any] = {
            "reply": reply[0][:2000],
            "tokens": reply[1:],
            "response_model": self._text.about["sha256_sampled"],
        }
        try:
            correct, score = read_reply(reply[0], ask.rubric.decides)
        except ValueError as error:
            return failed_verdict(self, f"unreadable reply: {error}", **about)
        return Verdict(correct, score=score, judge=self.name, model=self.model, **about)
