"""Open-ended predictions against the reference, by words alone: offline, and no substitute for a judge."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sfllava.evaluators.judge import Ask, Judge, JudgeError, Rubric
from sfllava.types import Question, Verdict

_ARTICLES = {"a", "an", "the"}
_NUMBERS = {
    w: str(i)
    for i, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}


def normalise(text: str) -> list[str]:
    """Words in lower case, without punctuation, accents or articles; numbers up to ten as digits."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    words = re.findall(r"\w+", plain.replace("'", ""))
    return [_NUMBERS.get(word) or word for word in words if word not in _ARTICLES]


def judge_match(question: Question, prediction: str) -> dict[str, Verdict]:
    """Exact: all words equal. Contains: the reference's words stand in the prediction, together and in order."""
    wanted, said = normalise(question.answer), normalise(prediction)
    inside = bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))
    return {
        "match-exact": Verdict(bool(wanted) and said == wanted, bool(said), judge="match-exact"),
        "match-contains": Verdict(inside, bool(said), judge="match-contains"),
    }


class MatchJudge(Judge):
    """The offline matcher as a judge of open-ended answers, by one of its rules; it gives no score."""

    paid, price, concurrency, batch, model = False, None, 1, 512, "match"

    def __init__(self, rule: str = "match-exact", name: str = "") -> None:
        if rule not in judge_match(Question(""), ""):
            raise JudgeError(f"the matcher has the rules {', '.join(judge_match(Question(''), ''))}, got {rule!r}")
        self._rule, self.name = rule, name or rule

    @property
    def identity(self) -> dict[str, Any]:
        return {"judge": self._rule}

    def check(self, rubric: Rubric) -> None:
        if not rubric.decides:
            raise JudgeError(
                f"{self.name} says right or wrong of short answers; the rubric {rubric.name} needs a model"
            )

    def tokens(self, ask: Ask) -> tuple[int, int]:
        return 0, 0

    async def grade(self, asks: Sequence[Ask]) -> list[Verdict]:
        said = [judge_match(Question(a.questions[0], answer=a.reference), a.predictions[0])[self._rule] for a in asks]
        return [replace(verdict, judge=self.name, model=self._rule, served=self._rule) for verdict in said]

    async def close(self) -> None:
        return None
