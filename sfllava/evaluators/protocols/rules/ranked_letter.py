"""The rule of lmms-eval since 0.7.2: of all letters in a reply, the one in the most telling place.

Source: lmms_eval/tasks/_task_utils/mcq_extract.py of EvolvingLMMs-Lab/lmms-eval (75571cf).
"""

from __future__ import annotations

_NOUNS = (
    "answer", "correct answer", "best answer", "correct option", "best option", "choice", "correct choice",
)  # fmt: skip
_PHRASES = (
    *(f"{article}{noun} is" for noun in _NOUNS for article in ("", "the ")),
    "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
_SHAPES = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}
_START, _END, _BEHIND_PHRASE, _ANYWHERE = 10, 9, 7, 0


def ranked_letter(reply: str, letters: str) -> str | None:
    """Return the capital letter that a reply names by lmms-eval's ranking of places; None if it has none.

    A letter at the start that begins no word comes first ("A man" is A), then one at the end, then any capital behind a
    phrase such as "the answer is", then letters by the brackets, stops or space around them, then any other. Of equal
    places the last counts.

    Args:
        reply: The model's text.
        letters: The letters of the options, such as "ABCD".
    """
    text = reply.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    alone, text = text.strip(), f" {text} "
    found = [(rank, text.rfind(shape.format(x)), x) for shape, rank in _SHAPES.items() for x in letters]
    for phrase in _PHRASES:
        if (start := text.lower().find(phrase)) >= 0:
            found += [(_BEHIND_PHRASE, text.find(x, start + len(phrase)), x) for x in letters]
    if alone and alone[0] in letters and not alone[1:2].isalpha():
        found.append((_START, 0, alone[0]))
    if alone and alone[-1] in letters and not alone[-2:-1].isalpha():
        found.append((_END, len(text) - 1, alone[-1]))
    found = [place for place in found if place[1] >= 0] or [(_ANYWHERE, text.rfind(x), x) for x in letters]
    _, position, letter = max(found, key=lambda place: place[:2])
    return letter if position >= 0 else None
