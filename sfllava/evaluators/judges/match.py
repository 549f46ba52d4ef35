"""A judge that compares words, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sfllava.evaluators.judges.base import Judge, JudgeError, JudgeRequest, Rubric
from sfllava.evaluators.match import judge_match
from sfllava.types import Question, Verdict


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

    def tokens(self, ask: JudgeRequest) -> tuple[int, int]:
        return 0, 0

    async def grade(self, asks: Sequence[JudgeRequest]) -> list[Verdict]:
        said = [judge_match(Question(a.questions[0], answer=a.reference), a.predictions[0])[self._rule] for a in asks]
        return [replace(verdict, judge=self.name, model=self._rule, response_model=self._rule) for verdict in said]

    async def close(self) -> None:
        return None
