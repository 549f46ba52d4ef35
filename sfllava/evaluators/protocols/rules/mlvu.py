"""MLVU's request, and its rule: the character before the first closing bracket, or else the whole reply.

Sources: evaluation/multiple_choice_evaluation/choice_bench.py of JUNJIE99/MLVU (fd060c1), `check_ans`, and the same in
VLMEvalKit and in lmms-eval up to 0.7.1.
"""

from __future__ import annotations

from sfllava.evaluators.protocols.rules.mvbench import LETTERED_OPTIONS
from sfllava.prompts import LETTERS

REQUEST = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, select the best option "
    f"that accurately addresses the question.\n{LETTERED_OPTIONS}"
)


def letter_before_bracket(reply: str) -> str | None:
    """Return the capital letter that is the whole reply or stands before its first closing bracket, or None."""
    before, bracket, _ = reply.partition(")")
    letter = before[-1:] if bracket else reply
    return letter if len(letter) == 1 and letter in LETTERS else None
