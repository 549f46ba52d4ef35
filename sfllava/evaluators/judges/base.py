"""What a judge is asked, in which words, and how its reply is read.

A prediction is hostile text: it is cut to a length, stripped of what a chat template would read as a turn, and set
between marks that it cannot know, since they are a hash of what stands between them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from sfllava.prompts import check_placeholders
from sfllava.types import SfllavaError, Verdict

RUBRICS = ("open", "CI", "DO", "CU", "TU", "CO")
"""Open-ended answers, then VCGBench: correctness, detail, context, temporal understanding, consistency of a pair."""
MAX_CHARACTERS = 4000
"""Characters of a text that a judge is shown; 128 new tokens are about 600."""
USER = "--- user ---\n"
"""The line between the system part and the user part of a rubric"""
_NAMES = ("question", "question2", "answer", "prediction", "prediction2", "fence")
_FIELDS = re.compile(rf"\{{({'|'.join(_NAMES)})\}}")
# What a chat template or a tokenizer would take for the end of a turn, or for another's turn
_TURNS = re.compile(r"<(?=[|/\w])|\[(?=/?INST\])|\b(?:USER|ASSISTANT|SYSTEM|HUMAN)(?=:)", re.IGNORECASE)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


class JudgeError(SfllavaError):
    """A judge that cannot go on at all; one verdict that failed is a `Verdict` with its `error` instead."""


@dataclass(frozen=True)
class Rubric:
    """The words in which a judge is asked; `text` is the system part, a line `--- user ---`, and the user part."""

    name: str
    text: str
    source: str = "text"

    def __post_init__(self) -> None:
        if self.text.count(USER) != 1:
            raise SfllavaError(f"{self.source}: a rubric needs the line {USER.strip()!r} once")
        check_placeholders(self.text, self.source, _NAMES)
        wanted = {"question", "answer", "prediction", *(("question2", "prediction2") if self.pair else ())}
        if missing := sorted(wanted - set(_FIELDS.findall(self.text))):
            raise SfllavaError(f"{self.source}: a rubric {self.name} needs {', '.join(f'{{{m}}}' for m in missing)}")

    @property
    def pair(self) -> bool:
        """Two questions and two predictions, judged together."""
        return self.name == "CO"

    @property
    def decides(self) -> bool:
        """Yes or no beside the score."""
        return self.name == "open"

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the reply."""
        fields: dict[str, Any] = {"correct": {"type": "string", "enum": ["yes", "no"]}} if self.decides else {}
        fields["score"] = {"type": "number"}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


@dataclass(frozen=True)
class JudgeRequest:
    """One thing to judge: a question, its reference and a prediction, or two of each but the reference."""

    rubric: Rubric
    questions: tuple[str, ...]
    reference: str
    predictions: tuple[str, ...]

    @property
    def content(self) -> str:
        """A hash of all that the judge is shown beside the rubric's words; equal ones are paid for once."""
        value = [self.rubric.name, self.questions, self.reference, self.predictions]
        return hashlib.sha256(json.dumps(value).encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def cut(self) -> bool:
        """Some prediction is too long to be shown whole."""
        return any(len(text) > MAX_CHARACTERS for text in self.predictions)

    def messages(self) -> tuple[str, str]:
        """The system text and the user text."""
        fill = {"answer": sanitize(self.reference), "fence": self.content[:16]}
        for end, question, prediction in zip(("", "2"), self.questions, self.predictions):
            fill |= {f"question{end}": sanitize(question), f"prediction{end}": sanitize(prediction)}
        system, user = self.rubric.text.split(USER)
        # the line end before that line is not the system part's
        return tuple(_FIELDS.sub(lambda m: fill[m[1]], part) for part in (system.removesuffix("\n"), user))  # type: ignore[return-value]


class Judge(Protocol):
    """Whatever grades. `name` is in the file's name; `identity` must be the same for all rows of a file."""

    name: str
    model: str
    concurrency: int
    """How many calls of `grade` may run at a time."""
    batch: int
    """How many asks one call takes."""
    paid: bool
    """It costs money, so an estimate comes first."""
    price: tuple[float, float] | None
    """US dollars per million prompt and reply tokens, where known."""

    @property
    def identity(self) -> dict[str, Any]: ...

    def check(self, rubric: Rubric) -> None:
        """Raise JudgeError for a rubric that it cannot use."""
        ...

    def tokens(self, ask: JudgeRequest) -> tuple[int, int]:
        """(prompt, reply) tokens that an ask takes at most, by estimate."""
        ...

    async def grade(self, asks: Sequence[JudgeRequest]) -> list[Verdict]:
        """Verdicts, one an ask; JudgeError where going on is of no use."""
        ...

    async def close(self) -> None: ...


def sanitize(text: str) -> str:
    """At most LONGEST characters, without control characters and with a space in what looks like a chat's turn."""
    text = _CONTROL.sub(" ", text.encode("utf-8", "replace").decode())
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS] + f" [cut: {len(text) - MAX_CHARACTERS} more characters]"
    return _TURNS.sub(r"\g<0> ", text)


@cache
def load_rubric(name: str, folder: str | Path | None = None) -> Rubric:
    """The package's own rubric of a name, or the file NAME.txt of a folder."""
    if name not in RUBRICS:
        raise SfllavaError(f"no rubric is called {name!r}; there are {', '.join(RUBRICS)}")
    file = (Path(folder) if folder else resources.files("sfllava.evaluators.judges") / "rubrics") / f"{name}.txt"
    try:
        return Rubric(name, file.read_bytes().decode("utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SfllavaError(f"{file}: cannot read the rubric: {error}") from error


def failed_verdict(judge: Judge, error: str, **more: Any) -> Verdict:
    """A verdict that there is not, and why."""
    return Verdict(None, False, judge=judge.name, model=judge.model, error=" ".join(error.split())[:500], **more)
