"""Caption matching: which of the labelled captions, such as "Caption A" or "Option 2", does a reply name?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from sfllava.evaluators.base import Evaluator
from sfllava.types import Question, Verdict


@lru_cache(65536)
def parse_caption(reply: str, options: tuple[str, ...]) -> int | None:
    """Return the index of the one option that a reply names, else None.

    The first of these rules by which the reply names exactly one option decides: the reply begins with its label; the
    reply is the last word of its label; the reply is its caption; the reply contains its caption.

    Args:
        reply: The model's text; case and punctuation are ignored.
        options: The options, each as "LABEL: CAPTION".
    """
    text = f" {_plain(reply)} "
    parts = [option.partition(": ") for option in options]
    named = [(f" {_plain(label)} ", f" {_plain(caption)} ") for label, _, caption in parts]
    rules = (
        lambda label, _: label.strip() and text.startswith(label),
        lambda label, _: label.strip() and text.strip() == label.split()[-1],
        lambda _, caption: caption.strip() and text == caption,
        lambda _, caption: caption.strip() and caption in text,
    )
    for rule in rules:
        found = [i for i, pair in enumerate(named) if rule(*pair)]
        if len(found) == 1:
            return found[0]
    return None


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


EVALUATOR = Evaluator("caption_matching", judge_caption, grade_caption)
