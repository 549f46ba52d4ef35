"""Open-ended predictions against the reference, by words alone: offline, and no substitute for a judge."""

from __future__ import annotations

import re
import unicodedata

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
