"""Open-ended answers: compare the words of a prediction with the reference. Offline, and no substitute for a judge."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from sfllava.evaluators.base import Evaluator
from sfllava.types import Question, Verdict

_ARTICLES = {"a", "an", "the"}
_NUMBERS = {
    w: str(i)
    for i, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}


def normalise(text: str) -> list[str]:
    """Split a text into lower-case words without punctuation, accents or articles; numbers up to ten become digits."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    words = re.findall(r"\w+", plain.replace("'", ""))
    return [_NUMBERS.get(word) or word for word in words if word not in _ARTICLES]


_normalise = lru_cache(65536)(normalise)


def judge_match(question: Question, prediction: str) -> dict[str, Verdict]:
    """Grade a prediction by two rules.

    `match-exact`: all words are equal. `match-contains`: the prediction contains the reference's words, adjacent and in
    order.
    """
    wanted, predicted = _normalise(question.answer), _normalise(prediction)
    starts = range(len(predicted) - len(wanted) + 1)
    contained = bool(wanted) and any(predicted[i : i + len(wanted)] == wanted for i in starts)
    exact, parsed = grade_exactly(question.answer, (), prediction)
    return {
        "match-exact": Verdict(exact, parsed, judge="match-exact"),
        "match-contains": Verdict(contained, parsed, judge="match-contains"),
    }


def grade_exactly(answer: str, options: Sequence[str], prediction: str) -> tuple[bool, bool]:
    """Whether all words of a prediction equal the reference's, and whether it has any."""
    wanted, predicted = _normalise(answer), _normalise(prediction)
    return bool(wanted) and predicted == wanted, bool(predicted)


EVALUATOR = Evaluator("open", judge_match, grade_exactly)
