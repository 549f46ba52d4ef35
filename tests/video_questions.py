"""Questions about a video that differ in length, and the token ids of their answers."""

from __future__ import annotations

from collections.abc import Iterable

from sfllava.types import Answer

QUESTIONS = [
    "what?",
    "what is the color of the barrels of the raft?",
    "where does it take place and what do they do, and who does it? " * 4,
    "how many animals are there: one, two, three?",
    "is it é \n new?",
]


def token_ids(answers: Iterable[Answer]) -> list[tuple[int, ...]]:
    """Return the generated token ids of each answer."""
    return [answer.token_ids for answer in answers]
