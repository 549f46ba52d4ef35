"""A judge in this process: a causal language model, or the one inside a LLaVA."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Protocol

from sfllava.evaluators.judges.base import (
    MAX_CHARACTERS,
    Judge,
    JudgeError,
    JudgeKind,
    JudgeOptions,
    JudgeRequest,
    failed_verdict,
)
from sfllava.evaluators.judges.reply import read_verdict
from sfllava.evaluators.judges.rubric import Rubric
from sfllava.types import SfllavaError, Verdict


class TextModel(Protocol):
    """What `models.text` makes: a model that replies greedily to (system, user) texts."""

    name: str
    about: dict[str, Any]
    """What identifies these weights."""
    batch: int
    """Prompts per call of `replies`."""

    def replies(
        self, asks: Sequence[tuple[str, str]], max_new_tokens: int
    ) -> list[tuple[str, int, int] | SfllavaError]:
        """Return (reply, prompt tokens, reply tokens) per prompt, or why there is none."""
        ...


class LocalJudge(Judge):
    """Grades with a text model in this process.

    Args:
        model: the model; the name of its folder is the recorded model name.
        name: name of the verdict file; made of the folder's name by default.
        max_reply_tokens: most new tokens of a reply.
        kind: the first part of the default name.
    """

    paid, price, concurrency = False, None, 1

    def __init__(self, model: TextModel, name: str = "", *, max_reply_tokens: int = 64, kind: str = "local") -> None:
        self._text, self.model, self.batch = model, model.name, model.batch
        own = PurePath(model.name).name + (f"-{quantize}" if (quantize := model.about.get("quantize")) else "")
        self.name = name or f"{kind}-{re.sub(r'[^A-Za-z0-9.-]+', '-', own).strip('-.')}"
        self._max_reply_tokens = max_reply_tokens

    @property
    def identity(self) -> dict[str, Any]:
        # the folder may move; the weights must not change
        # the same for both kinds, so that `--name` can go on with verdicts of earlier versions, which called all local
        about = {"judge": "local", **self._text.about}
        return {**about, "max_reply_tokens": self._max_reply_tokens, "longest_text": MAX_CHARACTERS}

    def check(self, rubric: Rubric) -> None:
        return None

    def tokens(self, request: JudgeRequest) -> tuple[int, int]:
        return sum(map(len, request.messages())) // 3, self._max_reply_tokens

    async def grade(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        prompts = [request.messages() for request in requests]
        replies = await asyncio.to_thread(self._text.replies, prompts, self._max_reply_tokens)
        return [self._verdict(request, reply) for request, reply in zip(requests, replies, strict=True)]

    async def close(self) -> None:
        return None

    def _verdict(self, request: JudgeRequest, reply: tuple[str, int, int] | SfllavaError) -> Verdict:
        if isinstance(reply, SfllavaError):
            return failed_verdict(self, str(reply))
        about: dict[str, Any] = {
            "reply": reply[0][:2000],
            "tokens": reply[1:],
            "response_model": self._text.about["sha256_sampled"],
        }
        try:
            found = read_verdict(reply[0], request)
        except ValueError as error:
            return failed_verdict(self, f"unreadable reply: {error}", **about)
        return Verdict(**found, judge=self.name, model=self.model, **about)


def _make(name: str, options: JudgeOptions) -> Judge:
    if not options.model:
        raise JudgeError(f"the {name} judge needs --model, the folder of a model")
    from sfllava.models.engines.vllm_text import load_vllm_text
    from sfllava.models.load import load_model
    from sfllava.models.text import VideoLMText, load_text_model

    where, quantize = (options.model, options.device), options.quantize
    if name == "llava":
        model: TextModel = VideoLMText(load_model(*where, quantize=quantize, engine=options.engine))
    elif options.engine.name == "vllm":
        options.engine.check(options.device, None, quantize)
        model = load_vllm_text(*where, options.engine)
    else:
        options.engine.check(options.device, None)
        model = load_text_model(*where, quantize=quantize)
    limit = {"max_reply_tokens": options.max_reply_tokens} if options.max_reply_tokens else {}
    return LocalJudge(model, options.name, kind=name, **limit)


JUDGE = JudgeKind(
    ("local", "llava"), "local: a causal LM; llava: the language model of a LLaVA", _make, loads_model=True
)
