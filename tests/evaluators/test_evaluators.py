from __future__ import annotations

import pytest

from sfllava.evaluators.choice import judge_choice, parse_published, parse_strict
from sfllava.evaluators.match import judge_match
from sfllava.types import Question


@pytest.mark.parametrize(
    ("reply", "published", "strict"),
    [
        ("A) paddling", 0, 0),
        ("b", 1, 1),
        ("C", 2, 2),
        ("(D) a dog", 3, 3),
        ("(a)", None, 0),  # the published rule knows no bracketed small letter
        ("because it is so", 1, None),  # and reads a b here
        ("USA: best", 0, None),
        ("", None, None),
        ("   ", None, None),
        ("The answer is B) a cat, not A) a dog", 0, 1),  # the order of the letters wins
        ("E: none, but the answer is D)", 3, None),
        ("I think that the answer is C", None, 2),
        ("Best option: (E) a bird", 4, 4),
        ("(A) or (B)", 0, None),
        ("e.", 4, 4),
        ("F) there is no sixth", None, None),
        ("1", None, None),
        ("A raft", 0, None),  # an article
        ("A.", 0, 0),
        ("Answer is wrong. B:", 1, None),
        ("The answer is a raft.", None, None),  # an article again
        ("the right option is a dog", None, None),
        ("The answer is (a) raft", None, 0),
        ("the answer is B.", None, 1),
        ("A\nBecause it floats", 0, 0),
        ("A, since it floats", 0, 0),
        ("A - the raft", 0, 0),
        ("**A**", None, 0),
        ("A. the barrel(s)", 0, 0),
        ("a boat", 0, None),
    ],
)
def test_reading_a_letter(reply, published, strict):
    assert parse_published(reply) == published
    assert parse_strict(reply, 5) == strict


def test_equal_options_are_equally_right_strictly():
    question = Question("?", answer="x", options=("x", "y", "x"), answer_index=0, task="choice")
    verdicts = judge_choice(question, "C) x")
    assert not verdicts["choice-published"].correct and verdicts["choice-strict"].correct
    assert verdicts["choice-strict"].chosen == 2


def test_an_unparsable_reply_is_wrong_and_says_so():
    question = Question("?", answer="x", options=("x", "y"), answer_index=0, task="choice")
    for verdict in judge_choice(question, "no idea").values():
        assert not verdict.correct and not verdict.parsed
    assert parse_strict("D)", 2) is None and parse_strict("(C) or (A)", 2) == 0  # a letter that is no option


@pytest.mark.parametrize(
    ("answer", "prediction", "exact", "contains"),
    [
        ("river", "River.", True, True),
        ("river", "on the river", False, True),
        ("black and white", "It is black and white!", False, True),
        ("two", "2", True, True),
        ("cat", "cats", False, False),
        ("cafe", "Café", True, True),
        ("the man", "a man", True, True),
        ("red", "", False, False),
        ("...", "anything", False, False),
        ("white black", "black white", False, False),
    ],
)
def test_matching(answer, prediction, exact, contains):
    verdicts = judge_match(Question("?", answer=answer), prediction)
    assert (verdicts["match-exact"].correct, verdicts["match-contains"].correct) == (exact, contains)


def test_only_letters_of_options_are_read():
    # the published rule ends at E, the strict one at the number of options
    assert [parse_published(f"{letter})") for letter in "AEF"] == [0, 4, None]
    assert [parse_strict(f"({letter})", 3) for letter in "ACD"] == [0, 2, None]
    assert parse_strict("F)", 6) == 5


def test_verdicts_of_a_choice_in_full():
    question = Question("?", answer="y", options=("x", "y"), answer_index=1, task="choice")
    found = judge_choice(question, "(b)")  # only the strict rule reads a small letter in brackets
    published, strict = found["choice-published"], found["choice-strict"]
    assert (published.correct, published.parsed, published.chosen) == (False, False, None)
    assert (strict.correct, strict.parsed, strict.chosen) == (True, True, 1)
    wrong = judge_choice(question, "A")
    assert [(v.correct, v.parsed, v.chosen, v.judge) for v in wrong.values()] == [
        (False, True, 0, "choice-published"), (False, True, 0, "choice-strict"),
    ]  # fmt: skip
