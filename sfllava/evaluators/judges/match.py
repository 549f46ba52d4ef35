"""A judge that compares words, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sfllava.evaluators.judges.base import Judge, JudgeError, JudgeKind, JudgeOptions, JudgeRequest
from sfllava.evaluators.judges.rubric import Rubric
from sfllava.evaluators.match import judge_match
from sfllava.types import Question, Verdict

_RULES = tuple(judge_match(Question(""), ""))


class MatchJudge(Judge):
    """Grades open-ended answers by one rule of the word matcher; it gives no score.

    Args:
        rule: `match-exact` or `match-contains`.
        name: name of the verdict file; the rule by default.

    Raises:
        JudgeError: There is no such rule.
    """

    paid, price, concurrency, batch, model = False, None, 1, 512, "match"

    def __init__(self, rule: str = "match-exact", name: str = "") -> None:
        if rule not in _RULES:
            raise JudgeError(f"the matcher has the rules {', '.join(_RULES)}, got {rule!r}")
        self._rule, self.name = rule, name or rule

    @property
    def identity(self) -> dict[str, Any]:
        return {"judge": self._rule}

    def check(self, rubric: Rubric) -> None:
        if not rubric.head.decides:
            raise JudgeError(f"{self.name} only decides short answers; the rubric {rubric.name} needs a model")

    def tokens(self, request: JudgeRequest) -> tuple[int, int]:
        return 0, 0

    async def grade(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        verdicts = [
            judge_match(Question(r.questions[0], answer=r.reference), r.predictions[0])[self._rule] for r in requests
        ]
        return [replace(v, judge=self.name, model=self._rule, response_model=self._rule) for v in verdicts]

    async def close(self) -> None:
        return None


def _make(name: str, options: JudgeOptions) -> Judge:
    return MatchJudge(name, options.name)


JUDGE = JudgeKind(_RULES, "match-exact, match-contains: compares words, without a model", _make)
