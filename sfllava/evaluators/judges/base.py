"""What a judge is asked, and what a judge is.

A prediction is untrusted text. It is cut to a maximum length, anything that a chat template would read as a turn is
broken up, and it is put between delimiters that it cannot know, since they contain a hash of the whole request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from sfllava.evaluators.judges.rubric import PLACES, USER, Rubric
from sfllava.models.engines.options import EngineOptions
from sfllava.prompts import LETTERS
from sfllava.types import SfllavaError, Verdict

MAX_CHARACTERS = 4000
"""Most characters of one text in a request; 128 new tokens are about 600."""
# What a chat template or a tokenizer could read as the end of a turn, or as another role's turn
_TURNS = re.compile(r"<(?=[|/\w])|\[(?=/?INST\])|\b(?:USER|ASSISTANT|SYSTEM|HUMAN)(?=:)", re.IGNORECASE)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


class JudgeError(SfllavaError):
    """The judge cannot continue at all; a single failed verdict is a `Verdict` with an `error` instead."""


@dataclass(frozen=True)
class JudgeRequest:
    """One request to a judge: a question, its reference and a prediction; for pairs, two questions and predictions.

    Attributes:
        rubric: what the judge is told.
        questions: the questions.
        reference: the answer that is right.
        predictions: the prediction on each question.
        options: the options of a question, for a rubric by which a judge chooses one.
        right: the index of the option that is right; None without options.
    """

    rubric: Rubric
    questions: tuple[str, ...]
    reference: str
    predictions: tuple[str, ...]
    options: tuple[str, ...] = ()
    right: int | None = None

    @property
    def content(self) -> str:
        """A hash of all texts in the request, without the rubric's; requests with equal content are paid for once."""
        questions, predictions, options = (
            tuple(map(json.dumps, texts)) for texts in (self.questions, self.predictions, self.options)
        )
        return content_hash(self.rubric.name, questions, predictions, json.dumps(self.reference), options)

    @property
    def cut(self) -> bool:
        """Whether a prediction is too long to be shown in full."""
        return any(len(text) > MAX_CHARACTERS for text in self.predictions)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the reply."""
        head, fields = self.rubric.head, {}
        if head.decides:
            fields["correct"] = {"type": "string", "enum": ["yes", "no"]}
        if head.chooses:
            fields["choice"] = {"type": "string", "enum": [*LETTERS[: len(self.options)], "none"]}
        if head.scale:
            fields["score"] = {"type": "number"}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}

    def messages(self) -> tuple[str, str]:
        """The system text and the user text."""
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options))
        fill = {"answer": sanitize(self.reference), "options": sanitize(listed), "fence": self.content[:16]}
        for end, question, prediction in zip(("", "2"), self.questions, self.predictions):
            fill |= {f"question{end}": sanitize(question), f"prediction{end}": sanitize(prediction)}
        system, user = self.rubric.text.split(USER)
        # the newline before the separator is not part of the system text
        return tuple(PLACES.sub(lambda m: fill[m[1]], part) for part in (system.removesuffix("\n"), user))  # type: ignore[return-value]


def content_hash(
    rubric: str, questions: Iterable[str], predictions: Iterable[str], reference: str, options: Iterable[str] = ()
) -> str:
    """Return `JudgeRequest.content` from the rubric's name and texts that are JSON already, for a million requests."""
    listed = ", ".join(options)
    more = f", [{listed}]" if listed else ""
    text = f"[{_as_json(rubric)}, [{', '.join(questions)}], {reference}, [{', '.join(predictions)}]{more}]"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _as_json(rubric: str) -> str:
    return json.dumps(rubric)


class Judge(Protocol):
    """Grades predictions. `name` is part of the file name; `identity` must be the same for all rows of a file."""

    name: str
    model: str
    concurrency: int
    """Calls of `grade` that may run at a time."""
    batch: int
    """Requests per call of `grade`."""
    paid: bool
    """Whether it costs money; then an estimate comes first."""
    price: tuple[float, float] | None
    """US dollars per million prompt and reply tokens, where known."""

    @property
    def identity(self) -> dict[str, Any]: ...

    def check(self, rubric: Rubric) -> None:
        """Raise JudgeError for a rubric that the judge cannot use."""
        ...

    def tokens(self, request: JudgeRequest) -> tuple[int, int]:
        """Estimate the most (prompt, reply) tokens that a request takes."""
        ...

    async def grade(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """Return one verdict per request. Raises JudgeError if further requests are pointless."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class JudgeOptions:
    """What the command line offers to set of a judge; each kind of judge uses what applies to it.

    Attributes:
        model: exact name of a served model, or folder of a local one.
        name: name of the verdict file; empty for a default made of judge and model.
        concurrency: requests at a time.
        seconds: time limit of one request.
        tries: requests for one verdict.
        max_reply_tokens: limit of a reply; None for the judge's default.
        structured: request replies that follow the JSON schema.
        price: US dollars per million prompt and reply tokens.
        device: where a local model runs.
        quantize: as in `load_model`, for a local model.
        engine: what runs a local model.
    """

    model: str = ""
    name: str = ""
    concurrency: int = 16
    seconds: float = 60.0
    tries: int = 8
    max_reply_tokens: int | None = None
    structured: bool = True
    price: tuple[float, float] | None = None
    device: str = "auto"
    quantize: str | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class JudgeKind:
    """What a file of this package exposes as `JUDGE`; it must import without torch and openai.

    Attributes:
        names: the names under which `--judge` offers it.
        help: one line for `--help`.
        make: (one of the names, options) -> the judge.
        has_batch_api: whether `--batch` works with it.
        loads_model: whether `make` loads a model into this process.
    """

    names: tuple[str, ...]
    help: str
    make: Callable[[str, JudgeOptions], Judge]
    has_batch_api: bool = False
    loads_model: bool = False


class BatchRun(Protocol):
    """What a client of a provider's Batch API needs to know and do about the run that it judges."""

    batches: list[dict[str, Any]]
    """One entry per submitted batch; saved by `save`."""

    def open_requests(self) -> dict[str, JudgeRequest]:
        """Requests without a verdict, by content."""
        ...

    def waiting(self) -> set[str]:
        """Contents in batches that are not collected yet."""
        ...

    def save(self) -> None:
        """Write `batches` to disk."""
        ...

    def write(self, verdicts: Mapping[str, Verdict]) -> None:
        """Write verdicts, by content, to disk in one piece."""
        ...


def sanitize(text: str) -> str:
    """Cut a text to MAX_CHARACTERS, replace control characters, and break up what looks like a chat turn."""
    text = _CONTROL.sub(" ", text.encode("utf-8", "replace").decode())
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS] + f" [cut: {len(text) - MAX_CHARACTERS} more characters]"
    return _TURNS.sub(r"\g<0> ", text)


def failed_verdict(judge: Judge, error: str, **more: Any) -> Verdict:
    """A verdict that says why there is none."""
    return Verdict(None, False, judge=judge.name, model=judge.model, error=" ".join(error.split())[:500], **more)
