"""The rule of Video-MME, which others took over: the first capital letter after some phrases are removed.

Sources: eval_your_results.py of thanku-all/parse_answer (afd52cf, which Video-MME's README names), the same file of
MME-Benchmarks/Video-MME (4e7566d), and their like in lmms-eval (75571cf, for LongVideoBench) and VLMEvalKit. All have a
further condition that changes nothing: a reply of more than ten words without any of the letters is unparsable, but so
is a shorter one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sfllava.evaluators.protocols.base import Draw, Reading, guess, read_letter
from sfllava.types import Question

_LONGVIDEOBENCH_PHRASES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer", "The best option is",
    "The correct option is", "Best answer:", "Best option:",
)  # fmt: skip


def first_letter(reply: str, phrases: Sequence[str], letters: str) -> str | None:
    """Return the first of some capital letters in a reply, wherever it stands; None if there is none.

    "A man" is A and "Both" is B, since the rule does not know words.

    Args:
        reply: The model's text.
        phrases: What is removed before, one after the other.
        letters: The letters of the options, such as "ABCD".
    """
    for phrase in phrases:
        reply = reply.replace(phrase, "")
    found = re.search(f"[{letters}]", reply)
    return found[0] if found else None


def read_longvideobench(question: Question, reply: str | None, draw: Draw) -> Reading:
    """Read the first letter from A to E, some phrases aside; where there is none, take a random option."""
    letter = first_letter(reply or "", _LONGVIDEOBENCH_PHRASES, "ABCDE")
    return read_letter(question, letter) if letter else guess(question, draw)
