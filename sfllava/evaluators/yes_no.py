"""Yes or no: what does a reply begin with?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from sfllava.evaluators.base import Evaluator
from sfllava.types import Question, Verdict

_FIRST_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@lru_cache(65536)
def parse_yes_no(reply: str) -> str | None:
    """Return "yes" or "no" if that is the first word of a reply, else None."""
    found = _FIRST_WORD.match(reply)
    return found[1].lower() if found else None


def judge_yes_no(question: Question, prediction: str) -> dict[str, Verdict]:
    """Grade a reply by its first word; a reply that begins with neither yes nor no is wrong."""
    correct, parsed = grade_yes_no(question.answer, (), prediction)
    return {"yes-no": Verdict(correct, parsed, judge="yes-no")}


def grade_yes_no(answer: str, options: Sequence[str], prediction: str) -> tuple[bool, bool]:
    """Whether a reply is right, and whether it begins with yes or no."""
    said = parse_yes_no(prediction)
    return said is not None and said == answer.strip().lower(), said is not None


EVALUATOR = Evaluator("yes_no", judge_yes_no, grade_yes_no)
