from __future__ import annotations

import pytest

from sfllava.runs.scoring import format_scores, score_rows
from sfllava.types import Question, SfllavaError

QUESTIONS = [Question("what?", f"q:{i}", "v", "red", ("red", "blue"), answer_index=0, task="choice") for i in range(8)]


def row(i, prediction=None, error=None, setting="s"):
    return {"key": f"q:{i}", "setting": setting, "prediction": prediction, "error": error}


ROWS = [row(0, "A"), row(1, "A"), row(2, "B"), row(3, "?"), row(4, error="broken"), row(5, error="broken"), row(6)]


def test_every_question_is_counted():
    scores = score_rows(QUESTIONS, ["s", "t"], ROWS)
    one = scores["s"]
    assert [one[name] for name in ("questions", "answered", "failed", "not_asked")] == [8, 4, 3, 1]
    assert one["reasons"] == {"broken": 2, "no prediction": 1}
    assert one["rules"]
    for rule in one["rules"].values():
        assert rule == {"accuracy": 0.25, "correct": 2, "unparsable": 1}
    assert [scores["t"][name] for name in ("answered", "failed", "not_asked")] == [0, 0, 8]


def test_the_text_has_the_counts_and_percentages():
    text = format_scores(score_rows(QUESTIONS, ["s"], ROWS))
    assert "s: 8 questions, 4 answered, 3 failed, 1 not asked yet\n" in text
    assert " 25.0 % (2 of 8 correct, 1 unparsable)" in text
    assert text.endswith("  failed 2 x: broken\n  failed 1 x: no prediction")


@pytest.mark.parametrize("stray", [row(9, "A"), row(0, "A", setting="u")])
def test_a_row_that_the_run_does_not_ask_is_an_error(stray):
    with pytest.raises(SfllavaError, match="not part of this run"):
        score_rows(QUESTIONS, ["s"], [stray])
