"""Which option does a reply to a multiple-choice question name?"""

from __future__ import annotations

import re

from sfllava.prompts import LETTERS
from sfllava.types import Question, Verdict

# A small letter may be the article: it counts with a bracket, or as the whole reply.
_START = re.compile(r"\(?(?:([A-Z])(?:[).:,]|\s*\n|\s+-\s|$)|([a-z])(?:\)|[.:]?$))")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_SAID = re.compile(r"\b(?i:answer|option) is:?\s+\(?([A-Z])(?:[).,:]|\s*$)")


def parse_published(reply: str) -> int | None:
    """The rule of the published evaluation, kept to compare with its scores.

    It knows A to E alone, reads `because` as b and `USA: best` as a. An empty reply, on which it fails, is unparsable.
    """
    if not reply:
        return None
    found = reply[0].lower() if reply[0] in "abcdeABCDE" else None
    if "answer is " in reply:
        reply = reply[reply.index("answer is") :]
    # in the order of the letters, not of where they stand
    found = next((x.lower() for x in "ABCDE" if f"{x}:" in reply or f"{x})" in reply), found)
    return None if found is None else "abcde".index(found)


def parse_strict(reply: str, options: int) -> int | None:
    """The one letter that stands alone: at the start of the reply, in brackets, or behind "answer is".

    Where these name different letters the reply is unparsable.
    """
    reply = reply.replace("*", "").strip()  # bold
    start = _START.match(reply)
    found = [*_BRACKETED.findall(reply), *_SAID.findall(reply), *([start[1] or start[2]] if start else [])]
    named = {LETTERS.index(letter.upper()) for letter in found}
    named = {index for index in named if index < options}  # "barrel(s)" names no option
    return named.pop() if len(named) == 1 else None


def judge_choice(question: Question, prediction: str) -> dict[str, Verdict]:
    """Both readings of a reply. An unparsable reply is wrong. Strictly, an option equal to the right one is right."""
    published, strict = parse_published(prediction), parse_strict(prediction, len(question.options))
    return {
        "choice-published": Verdict(
            published is not None and published == question.answer_index,
            published is not None,
            published,
            "choice-published",
        ),
        "choice-strict": Verdict(
            strict is not None and question.options[strict] == question.answer,
            strict is not None,
            strict,
            "choice-strict",
        ),
    }
