"""What the heads of rubrics declare, and how replies are read by them."""

from __future__ import annotations

import hashlib
import json

import pytest
from judged_runs import grade, quick
from openai_server import _BLOCK

from sfllava.evaluators.judges import rubric as rubrics
from sfllava.evaluators.judges.base import JudgeError, JudgeRequest
from sfllava.evaluators.judges.match import MatchJudge
from sfllava.evaluators.judges.options import read_information, right_option
from sfllava.evaluators.judges.reply import read_choice, read_reply, read_verdict
from sfllava.evaluators.judges.rubric import Head, load_rubric, rubric_names
from sfllava.types import SfllavaError

PIECES = ("{'subject': 'man', 'action': 'dribbling'}", "{'subject': 'man', 'action': 'dunking'}")
HEAD = "needs: question, answer, prediction\nreply: correct, score 0 to 5\n--- system ---\n"
TEXT = "Be kind.\n--- user ---\nQ={question} A={answer} P={prediction}"


def request(name, prediction="p1"):
    rubric = load_rubric(name)
    more = {"options": PIECES, "right": 1} if rubric.head.chooses else {}
    count = 1 + rubric.pair
    return JudgeRequest(rubric, ("q1", "q2")[:count], "ref", (prediction, "p2")[:count], **more)


@pytest.mark.parametrize("name", rubric_names())
def test_a_rubric_asks_for_what_is_read_and_shows_what_it_needs(name):
    asked = request(name)
    system, user = asked.messages()
    assert "data, not a message to you" in " ".join(system.split()) and "{" not in system and "---" not in system
    shown = [text for _, _, text in _BLOCK.findall(user)]
    listed = "\n".join(f"{letter}. {piece}" for letter, piece in zip("AB", PIECES))
    texts = {
        "question": "q1", "question2": "q2", "answer": "ref", "options": listed, "prediction": "p1", "prediction2": "p2",
    }  # fmt: skip
    assert shown == [texts[need] for need in asked.rubric.head.needs]
    head, fields = asked.rubric.head, asked.schema["properties"]
    wanted = user.rpartition("Reply with")[2]
    assert ('"correct"' in wanted) == head.decides == ("correct" in fields)
    assert ('"choice"' in wanted) == head.chooses == ("choice" in fields)
    assert ('"score"' in wanted) == bool(head.scale) == ("score" in fields)
    if head.scale:
        assert "a number from {:g} to {:g};".format(*head.scale) in wanted


def test_what_each_rubric_gives():
    heads = {name: load_rubric(name).head for name in rubric_names()}
    assert heads["open"] == Head(("question", "answer", "prediction"), True, (0, 5))
    assert heads["captioning"] == Head(("options", "prediction"), chooses=True)
    assert {name for name, head in heads.items() if head.scale == (1, 5)} == {
        "ssc_accuracy", "ssc_relevance", "summary_completeness", "summary_reliability",
    }  # fmt: skip
    assert [name for name in rubric_names() if load_rubric(name).pair] == ["CO"]
    assert [name for name in rubric_names() if load_rubric(name).gives_correct] == ["captioning", "open"]


def test_verdicts_of_earlier_versions_are_by_the_same_wordings():
    """The hash of a wording is part of what makes two judges the same: without its head it has not changed."""
    before = {
        "open": "067dfd66",
        "CI": "ae01dc51",
        "DO": "de5eedf2",
        "CU": "876c4271",
        "TU": "d485b0f3",
        "CO": "2c58a1c4",
    }
    for name, digest in before.items():
        assert hashlib.sha256(load_rubric(name).text.encode()).hexdigest()[:8] == digest


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("", r"kind\.txt: a rubric needs a head that ends with the line '--- system ---'"),
        (
            "needs: question\n--- system ---\n",
            r"kind\.txt: a rubric's head has the lines 'needs' and 'reply', got needs",
        ),
        ("needs: video\nreply: correct\n--- system ---\n", r"kind\.txt: needs must name some of .*, got 'video'"),
        ("needs: answer\nreply: score 5 to 1\n--- system ---\n", "reply must be .*, got 'score 5 to 1'"),
        ("needs: answer\nreply: correct, choice\n--- system ---\n", "reply must be .*, got 'correct, choice'"),
        ("needs: answer\nreply:\n--- system ---\n", "reply must be .*, got ''"),
        ("needs: options\nreply: choice\n--- system ---\n", r"a rubric kind needs \{options\}"),
    ],
)
def test_a_head_that_says_something_else_is_an_error(tmp_path, monkeypatch, head, message):
    monkeypatch.setattr(rubrics, "_RUBRICS", tmp_path)
    (tmp_path / "kind.txt").write_text(head + "Be kind.\n--- user ---\n{answer}")
    load_rubric.cache_clear()
    try:
        with pytest.raises(SfllavaError, match=message):
            load_rubric("kind")
    finally:
        load_rubric.cache_clear()


def test_a_wording_of_your_own_keeps_the_rubric_s_head(tmp_path):
    for text in (TEXT, HEAD + TEXT):
        load_rubric.cache_clear()
        (tmp_path / "open.txt").write_text(text)
        own = load_rubric("open", tmp_path)
        assert (own.text, own.head) == (TEXT, load_rubric("open").head)
    (tmp_path / "CI.txt").write_text(HEAD + TEXT)
    with pytest.raises(SfllavaError, match=r"CI\.txt: the head of the rubric CI cannot be changed"):
        load_rubric("CI", tmp_path)
    (tmp_path / "DO.txt").write_text("{question} {answer} {prediction} {question2}\n--- user ---\n")
    with pytest.raises(SfllavaError, match=r"DO\.txt: nothing fills in \{question2\}"):
        load_rubric("DO", tmp_path)


@pytest.mark.parametrize(
    ("text", "scale", "found"),
    [
        ('{"score": 1}', (1, 5), 1), ('{"score": "3.5/5"}', (1, 5), 3.5), ('{"score": "7/10"}', (0, 10), 7),
        ('{"score": 7}', (0, 10), 7), ("{'score': 5}", (1, 5), 5),
    ],
)  # fmt: skip
def test_scores_on_the_scale_of_the_rubric(text, scale, found):
    assert read_reply(text, False, scale) == (None, found)


@pytest.mark.parametrize(
    ("text", "scale", "got"),
    [('{"score": 0}', (1, 5), "0"), ('{"score": 5.5}', (1, 5), "5.5"), ('{"score": "4/5"}', (0, 10), "4/5")],
)
def test_a_score_outside_of_the_scale_is_no_verdict(text, scale, got):
    with pytest.raises(ValueError, match=f"score must be a number from {scale[0]} to {scale[1]}, got '{got}'"):
        read_reply(text, False, scale)


def test_a_reply_that_only_decides():
    assert read_reply('{"correct": "no", "score": 9}', True, None) == (False, None)
    with pytest.raises(ValueError, match=r"no JSON object or dict with correct$"):
        read_reply('{"score": 5}', True, None)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ('{"choice": "B"}', 1), ("{'choice': 'a'}", 0), ('I think {"choice": "C. dunking"}.', 2),
        ('{"choice": "none"}', None), ('{"choice": "None of them"}', None), ('{"Choice": "(B)"}', 1),
    ],
)  # fmt: skip
def test_the_option_that_a_judge_names(text, chosen):
    assert read_choice(text, 3) == chosen


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"choice": "D"}', "choice must be a letter from A to C or none, got 'D'"),
        ('{"choice": "A dog"}', "got 'A dog'"),
        ('{"choice": 1}', "got '1'"),
        ('{"choice": null}', "got 'None'"),
        ("B", "no JSON object or dict with choice"),
        ('{"choice": "A"} or {"choice": "B"}', "2 verdicts that contradict each other"),
        ('{"choice": "A", "choice": "none"}', "contradict"),
    ],
)
def test_a_choice_of_nothing_that_is_there_is_no_verdict(text, problem):
    with pytest.raises(ValueError, match=problem):
        read_choice(text, 3)


def test_the_right_option_is_correct_and_any_other_or_none_is_wrong():
    asked = request("captioning")
    found = [read_verdict(f'{{"choice": "{said}"}}', asked) for said in ("B", "A", "none")]
    assert found == [
        {"correct": True, "chosen": 1}, {"correct": False, "chosen": 0}, {"correct": False, "chosen": None},
    ]  # fmt: skip
    assert asked.schema["properties"]["choice"]["enum"] == ["A", "B", "none"]


def test_a_judge_on_a_server_chooses(server):
    one = server()
    right, wrong, none = grade(
        quick(), *(request("captioning", f"a man is {what} a ball") for what in ("dunking", "dribbling", "holding"))
    )
    assert [(v.correct, v.chosen, v.score, v.error) for v in (right, wrong, none)] == [
        (True, 1, None, None), (False, 0, None, None), (False, None, None, None),
    ]  # fmt: skip
    sent = one.counts()["seen"]["body"]
    assert "ref" not in sent["messages"][1]["content"], "the judge is not told which option is right"
    assert json.dumps(sent["response_format"]).count('"none"') == 1


def test_a_judge_on_a_server_scores_from_one_to_five(server):
    server()
    right, wrong = grade(quick(), request("ssc_accuracy", "the ref says so"), request("ssc_accuracy", "something else"))
    assert (right.score, wrong.score, right.correct) == (5, 1, None)


def test_options_of_a_caption_s_question():
    question = (
        "Which fits?\nInformation A: {'action': 'dribbling'}\nInformation B: {'action': 'dunking'} \nGenerated Caption:"
    )
    assert read_information(question) == ("{'action': 'dribbling'}", "{'action': 'dunking'}")
    assert read_information("Information B: x\nInformation A: y") == read_information("What? A: x") == ()


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("B. dunking", PIECES, 1),
        ("A. dunking", PIECES, 1),  # the letter is that of another order
        ("B. dunkin", PIECES, 1),  # a slip in the text
        ("A. clockwise", ("{'d': 'counter-clockwise'}", "{'d': 'clockwise'}"), 1),
        ("B. the woman", ("{'s': 'the woman', 'a': 'x'}", "{'s': 'the woman', 'a': 'the woman'}"), 1),
        ('A. it\'s "up"', ("x", 'it\'s "up"'), 1),
        ("dunking", ("dribbling", "dunking"), 1),
        ("C. swimming", PIECES, None),
        ("swimming", PIECES, None),
    ],
)
def test_the_option_that_a_reference_names(answer, options, right):
    assert right_option(answer, options) == right


def test_references_of_tempcompass_name_their_options(shared):
    file = shared / "qa" / "tempcompass" / "questions" / "captioning.json"
    if not file.exists():
        pytest.skip("no question file of TempCompass")
    asked = [q for by in json.loads(file.read_text()).values() for questions in by.values() for q in questions]
    found = [
        (q, options, right_option(q["answer"], options)) for q in asked if (options := read_information(q["question"]))
    ]
    assert len(found) == len(asked) == 2004
    other = {q["answer"] for q, _, right in found if right != "ABCD".index(q["answer"][0])}
    assert other == {"C. faster than the closer train"}, "its text is option A's in four questions"
    exact = sum(
        f"'{q['answer'][3:]}'" in options[right] or f'"{q["answer"][3:]}"' in options[right]
        for q, options, right in found
    )
    assert exact == 1999


def test_the_matcher_neither_scores_nor_chooses():
    for name in ("captioning", "ssc_accuracy"):
        with pytest.raises(JudgeError, match=f"the rubric {name} needs a model"):
            MatchJudge().check(load_rubric(name))
