"""Which caption a reply names: its label first, then its text."""

from __future__ import annotations

import pytest

from sfllava.evaluators.caption_matching import parse_caption
from sfllava.evaluators.yes_no import parse_yes_no

DOGS = ("Caption A: A dog runs.", "Caption B: A dog runs fast.")
NUMBERED = ("Option 1: It rises", "Option 2: It falls")


@pytest.mark.parametrize(
    ("reply", "options", "chosen"),
    [
        ("Caption B: A dog runs fast.", DOGS, 1),  # the text of A is in it, but the label decides
        ("A dog runs fast.", DOGS, 1),
        ("a dog runs", DOGS, 0),
        ("B", DOGS, 1),
        ("caption a", DOGS, 0),
        ("Caption C", DOGS, None),
        ("A cat", DOGS, None),  # the article names no option
        ("", DOGS, None),
        ("Option 2", NUMBERED, 1),
        ("2.", NUMBERED, 1),
        ("The video shows that it falls.", NUMBERED, 1),
        ("It rises, then it falls.", NUMBERED, None),
        ("Option 12", NUMBERED, None),
        ("anything", (": x", ": y"), None),
    ],
)
def test_captions(reply, options, chosen):
    assert parse_caption(reply, options) == chosen


@pytest.mark.parametrize(
    ("reply", "said"),
    [("Yes, it is.", "yes"), ("no", "no"), ("**No**", "no"), ("nothing", None), ("not sure", None), ("", None), ("I say yes", None)],
)  # fmt: skip
def test_yes_or_no_is_the_first_word(reply, said):
    assert parse_yes_no(reply) == said
