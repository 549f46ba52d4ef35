"""The rule of MMMU as lmms-eval's EgoSchema and NExT-QA have it, each with changes of its own.

Sources: `parse_multi_choice_response` in lmms_eval/tasks/egoschema/utils.py and lmms_eval/tasks/nextqa/utils.py of
EvolvingLMMs-Lab/lmms-eval (75571cf). Both take a random option where this finds none.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfllava.prompts import LETTERS

_LONG = 5
"""A reply of more words may also repeat an option's text."""


def egoschema_letter(reply: str, options: Sequence[str]) -> str | None:
    """Return the option's letter whose last place in a reply comes first; None if the reply names none.

    Letters count in brackets, before a space, or before a full stop. In a reply of more than five words without any,
    the option's line counts, with its letter: "A. the text".
    """
    letters, text = LETTERS[: len(options)], _padded(reply)
    found = [(text.rfind(shape.format(x)), x) for shape in ("({})", "{} ", "{}.") for x in letters]
    if not any(place >= 0 for place, _ in found) and len(text.split()) > _LONG:
        lines = [f"{x}. {option}".lower() for x, option in zip(letters, options)]
        found = [(text.lower().rfind(line), x) for line, x in zip(lines, letters)]
    found = [place for place in found if place[0] >= 0]
    return min(found, key=lambda place: place[0])[1] if found else None


def nextqa_letter(reply: str, options: Sequence[str]) -> str | None:
    """Return the option's letter whose last place in a reply comes last; None if the reply names none.

    Letters in brackets count; else those before a space; else those before a full stop; else, in a reply of more than
    five words, the options' texts.
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
