"""The options that a judge chooses from: those of a question, or the pieces of information in its text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sfllava.prompts import LETTERS

_INFORMATION = re.compile(r"^Information ([A-Z]): *(.+?) *$", re.MULTILINE)
_LETTERED = re.compile(r"([A-Z])\. +(.*)", re.DOTALL)


def read_information(question: str) -> tuple[str, ...]:
    """Return the texts of a question's lines "Information A: ...", "Information B: ..."; empty if there are none."""
    found = _INFORMATION.findall(question)
    in_order = [letter for letter, _ in found] == list(LETTERS[: len(found)])
    return tuple(text for _, text in found) if in_order else ()


def right_option(answer: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that a reference names.

    Args:
        answer: The reference, such as "B. dunking a basketball". Its text counts before its letter, since the letters
            of some files belong to options in another order.
        options: The options, as plain texts or with the reference's text as a quoted value, such as "{'action':
            'dunking a basketball'}".

    Returns:
        The index, or None if the reference names no option.
    """
    lettered = _LETTERED.fullmatch(answer.strip())
    text = lettered[2].strip() if lettered else answer.strip()
    quoted = (text, f"'{text}'", f'"{text}"')
    named = [i for i, option in enumerate(options) if option == text or any(value in option for value in quoted[1:])]
    if len(named) == 1:
        return named[0]
    place = LETTERS.index(lettered[1]) if lettered else len(options)
    return place if place < len(options) else None
