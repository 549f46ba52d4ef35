"""Multiple choice: which option does a reply name?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from sfllava.evaluators.base import Evaluator
from sfllava.prompts import LETTERS
from sfllava.types import Question, Verdict

# A small letter may be the article: it counts with a bracket, or as the whole reply.
_START = re.compile(r"\(?(?:([A-Z])(?:[).:,]|\s*\n|\s+-\s|$)|([a-z])(?:\)|[.:]?$))")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_ANSWER_IS = re.compile(r"\b(?i:answer|option) is:?\s+\(?([A-Z])(?:[).,:]|\s*$)")


def parse_published(reply: str) -> int | None:
    """Parse a reply by the rule of the published evaluation, to compare with its scores.

    The rule knows only A to E. It reads `because` as b and `USA: best` as a. The published code fails on an empty
    reply; here such a reply is unparsable.

    Args:
        reply: the model's text.

    Returns:
        The index of the option from 0, or None for an unparsable reply.
    """
    if not reply:
        return None
    found = reply[0].lower() if reply[0] in "abcdeABCDE" else None
    if "answer is " in reply:
        reply = reply[reply.index("answer is") :]
    # the first letter of the alphabet wins, not the first in the reply
    found = next((x.lower() for x in "ABCDE" if f"{x}:" in reply or f"{x})" in reply), found)
    return None if found is None else "abcde".index(found)


def parse_strict(reply: str, options: int) -> int | None:
    """Parse a reply by its one separate letter: at its start, in brackets, or after "answer is".

    Args:
        reply: the model's text; bold marks are ignored.
        options: the number of options; later letters name none.

    Returns:
        The index of the option from 0, or None for a reply that names no option or several.
    """
    reply = reply.replace("*", "").strip()  # bold
    start = _START.match(reply)
    found = [*_BRACKETED.findall(reply), *_ANSWER_IS.findall(reply), *([start[1] or start[2]] if start else [])]
    named = {LETTERS.index(letter.upper()) for letter in found}
    named = {index for index in named if index < options}  # "barrel(s)" names no option
    return named.pop() if len(named) == 1 else None


_parse_strict = lru_cache(65536)(parse_strict)


def judge_choice(question: Question, prediction: str) -> dict[str, Verdict]:
    """Grade a reply by the published rule and by the strict one.

    An unparsable reply is wrong. By the strict rule, an option equal to the right one is right too.
    """
    published, strict = parse_published(prediction), _parse_strict(prediction, len(question.options))
    right = published is not None and published == question.answer_index
    strictly_right, parsed = grade_strictly(question.answer, question.options, prediction)
    return {
        "choice-published": Verdict(right, published is not None, published, "choice-published"),
        "choice-strict": Verdict(strictly_right, parsed, strict, "choice-strict"),
    }


def grade_strictly(answer: str, options: Sequence[str], prediction: str) -> tuple[bool, bool]:
    """Whether a reply is right by the strict rule, and whether it could be parsed."""
    chosen = _parse_strict(prediction, len(options))
    return chosen is not None and options[chosen] == answer, chosen is not None


EVALUATOR = Evaluator("choice", judge_choice, grade_strictly)
