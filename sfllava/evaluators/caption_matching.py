"""Caption matching: which of the labelled captions, such as "Caption A" or "Option 2", does a reply name?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from sfllava.evaluators.base import Evaluator
from sfllava.types import Question, Verdict


@lru_cache(65536)
def parse_caption(reply: str, options: tuple[str, ...]) -> int | None:
    """Return the index of the only option that a reply names by its label or its text, else None.

    Args:
        reply: The model's text.
        options: The options, each "LABEL: TEXT". A reply may contain the text, start with the label, or be the last
            word of the label.
    """
    text = _plain(reply)
    found = set()
    for i, option in enumerate(options):
        label, _, caption = option.partition(": ")
        if (
            (caption and _plain(caption) in text)
            or _begins_with(text, _plain(label))
            or text == _plain(label).split()[-1]
        ):
            found.add(i)
    return found.pop() if len(found) == 1 else None


def judge_caption(question: Question, prediction: str) -> dict[str, Verdict]:
    """Grade a reply by the option that it names; a reply that names none or several is wrong."""
    correct, parsed = grade_caption(question.answer, question.options, prediction)
    return {"caption": Verdict(correct, parsed, judge="caption")}


def grade_caption(answer: str, options: Sequence[str], prediction: str) -> tuple[bool, bool]:
    """Whether a reply is right, and whether it names exactly one option."""
    chosen = parse_caption(prediction, tuple(options))
    return chosen is not None and options[chosen] == answer, chosen is not None


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


def _begins_with(text: str, label: str) -> bool:
    return text == label or text.startswith(f"{label} ")


EVALUATOR = Evaluator("caption_matching", judge_caption, grade_caption)
