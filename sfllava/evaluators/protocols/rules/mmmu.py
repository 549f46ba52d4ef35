"""The rule of MMMU in lmms-eval's tasks EgoSchema and NExT-QA, which changed it in different ways.

Sources: `parse_multi_choice_response` in lmms_eval/tasks/egoschema/utils.py and lmms_eval/tasks/nextqa/utils.py of
EvolvingLMMs-Lab/lmms-eval (75571cf). Both pick a random option if the rule finds none.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfllava.prompts import LETTERS

_LONG = 5
"""Only longer replies, in words, are searched for the text of an option."""


def egoschema_letter(reply: str, options: Sequence[str]) -> str | None:
    """Return the letter whose last occurrence in a reply is the earliest; None if the reply names none.

    A letter counts in brackets, before a space, or before a full stop. If a reply of more than five words has none, the
    options are searched with their letters: "A. the text".
    """
    letters, text = LETTERS[: len(options)], _padded(reply)
    found = [(text.rfind(shape.format(x)), x) for shape in ("({})", "{} ", "{}.") for x in letters]
    if not any(place >= 0 for place, _ in found) and len(text.split()) > _LONG:
        lines = [f"{x}. {option}".lower() for x, option in zip(letters, options)]
        found = [(text.lower().rfind(line), x) for line, x in zip(lines, letters)]
    found = [place for place in found if place[0] >= 0]
    return min(found, key=lambda place: place[0])[1] if found else None


def nextqa_letter(reply: str, options: Sequence[str]) -> str | None:
    """Return the letter whose last occurrence in a reply is the latest; None if the reply names none.

    Letters in brackets count first, then letters before a space, then letters before a full stop, and then, in a reply
    of more than five words, the texts of the options.
    """
    letters, text = LETTERS[: len(options)], _padded(reply)
    for shape, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        named = [x for x in letters if shape.format(x) in text]
        if named:
            return max(named, key=lambda x: text.rfind(place.format(x)))
    if len(text.split()) > _LONG:
        repeated = [(text.lower().rfind(option.strip().lower()), x) for option, x in zip(options, letters)]
        repeated = [place for place in repeated if place[0] >= 0]
        return max(repeated, key=lambda place: place[0])[1] if repeated else None
    return None


def _padded(reply: str) -> str:
    for mark in ",.!?;:'":
        reply = reply.strip(mark)
    return f" {reply} "
