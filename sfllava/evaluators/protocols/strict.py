"""`strict`: the package's own rules, which read no option by accident and count every question.

A letter must stand alone at the start, in brackets or behind "answer is"; yes or no must be the first word; a caption
is named by its label or repeated. What cannot be read is wrong, and so is a question that failed. An option equal to
the right one is right.
"""

from __future__ import annotations

from dataclasses import replace

from sfllava.evaluators.caption_matching import parse_caption
from sfllava.evaluators.choice import parse_strict
from sfllava.evaluators.protocols.base import WRONG, YES_NO, Draw, Protocol, Reading, read_index
from sfllava.evaluators.yes_no import parse_yes_no
from sfllava.types import Question


def _read(question: Question, reply: str | None, draw: Draw) -> Reading:
    if reply is None:
        return WRONG
    if question.task == "yes_no":
        said = parse_yes_no(reply)
        return read_index(question, YES_NO.index(said) if said else None)
    if question.task == "caption_matching":
        chosen = parse_caption(reply, question.options)
    else:
        chosen = parse_strict(reply, len(question.options))
    right = chosen is not None and question.options[chosen] == question.answer
    return replace(read_index(question, chosen), correct=right)


PROTOCOL = Protocol(
    name="strict",
    summary="the package's own: a letter that stands alone; what cannot be read is wrong",
    rules={"": _read},
    means=None,
    notes={"": "an unparsable reply is wrong, and so is a question that failed"},
)
