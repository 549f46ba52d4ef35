from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sfllava.analysis import stats
from sfllava.analysis.score_intervals import estimate, intervals
from sfllava.benchmarks.base import Benchmark
from sfllava.benchmarks.groups import count_groups
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.runs.score_table import format_scores
from sfllava.runs.scoring import score_rows
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
    assert one["unparsable"] == 1 and "empty" not in one
    assert [scores["t"][name] for name in ("answered", "failed", "not_asked")] == [0, 0, 8]


def test_the_text_has_the_counts_and_percentages():
    text = format_scores(score_rows(QUESTIONS, ["s"], ROWS))
    assert text.splitlines() == [
        "8 questions, 4 answered, 3 failed, 1 not asked yet",
        "setting  choice-published, %  choice-strict, %  failed  not asked  unparsable",
        "s                       25.0              25.0       3          1           1",
        "failed 2 x: broken",
        "failed 1 x: no prediction",
    ]


def test_empty_and_unparsable_answers_are_counted_apart():
    scores = score_rows(QUESTIONS, ["s"], [row(i, said) for i, said in enumerate(["A", "", " \n", "?"])])
    one = scores["s"]
    assert (one["answered"], one["empty"], one["unparsable"]) == (4, 2, 1)
    assert one["rules"]["choice-strict"] == {"accuracy": 1 / 8, "correct": 1, "unparsable": 1}
    assert format_scores(scores).splitlines()[2].split() == ["s", "12.5", "12.5", "4", "2", "1"]


def test_the_interval_comes_from_counts_by_video():
    questions = [
        Question("?", f"q:{v}{i}", f"v{v}", "red", ("red", "blue"), answer_index=0, task="choice")
        for v in range(12)
        for i in range(3)
    ]
    rows = [row(q.key[2:], "A" if n % 5 else "B") | {"key": q.key} for n, q in enumerate(questions)]
    rows[1] |= {"prediction": None, "error": "broken"}
    scores = score_rows(questions, ["s"], rows)
    right = [[r["prediction"] == "A" for r in rows[i : i + 3]] for i in range(0, 36, 3)]
    counts = Counter(f"{sum(each)}/3" for each in right)
    assert scores["s"]["right_by_video"] == dict(sorted(counts.items()))
    wanted = stats.proportion(np.ravel(right).astype(float), np.repeat(np.arange(12), 3))
    found = intervals(scores)["s"]
    assert found == pytest.approx([100 * wanted.mean, 100 * wanted.low, 100 * wanted.high])
    text = format_scores(scores, intervals(scores), {"s": 0.123})
    mean, low, high = found
    assert text.splitlines()[1].split("  ")[-3:] == ["accuracy, %", "failed", "s/question"]
    assert text.splitlines()[2] == f"s        {mean:.1f} [{low:.1f}, {high:.1f}]       1        0.12"
    assert "accuracy by choice-published and choice-strict" in text


@pytest.mark.parametrize("counts", [None, {}, {"1/0": 2}, {"2/1": 1}, {"x/1": 1}, {"1/2": -1}, {"1/2": 10**9}, [1]])
def test_counts_that_are_none_give_no_interval(counts):
    assert estimate(counts) is None


def test_a_table_of_long_names_fits_the_terminal():
    name = "50frms-slowfast-slow_10frms_spatial_1d_max_pool-fast_{}x{}"
    settings = [name.format(n, n) for n in range(1, 4)]
    scores = score_rows(QUESTIONS, settings, [row(0, "A", setting=settings[0])])
    lines = format_scores(scores, width=80).splitlines()
    assert max(map(len, lines)) <= 80 and "8 questions at 3 settings" in lines[0]
    # what all names begin with is written once
    assert lines[2].startswith("…fast_1x1 ") and f"… is {settings[0].removesuffix('fast_1x1')}" in lines
    # a name that begins otherwise is broken into lines, not cut
    lines = format_scores({settings[0]: scores[settings[0]]}, width=70).splitlines()
    assert max(map(len, lines)) <= 70 and settings[0] in "".join(line.split("  ")[0] for line in lines)


@pytest.mark.parametrize("stray", [row(9, "A"), row(0, "A", setting="u")])
def test_a_row_that_the_run_does_not_ask_is_an_error(stray):
    with pytest.raises(SfllavaError, match="not part of this run"):
        score_rows(QUESTIONS, ["s"], [stray])


def mixed(task, group, i, **more):
    options = {"choice": ("x", "y"), "caption_matching": ("Caption A: x", "Caption B: y")}.get(task, ())
    answer = {"yes_no": "yes", "open": "a dog"}.get(task, options[0] if options else "B. y")
    index = 0 if options else None
    groups = {"form": task, "dimension": group}
    return Question(
        "?", f"{task}/{group}/{i}", "v", answer, options, index, task=task, groups=groups, type=group, **more
    )


MIXED = [
    mixed(task, group, i)
    for task, count in (("choice", 4), ("yes_no", 8), ("caption_matching", 2))
    for group in ("action", "order")
    for i in range(count)
]
SAID = {"choice": ("A", "B"), "yes_no": ("Yes, it is.", "no"), "caption_matching": ("Caption A", "Caption B")}


def said(questions, right, setting="s"):
    rows = []
    for q in questions:
        answer = SAID[q.task][not right(q)]
        rows.append({"key": q.key, "setting": setting, "prediction": answer, "error": None})
    return rows


def with_headline(questions, *groups, **spec):
    return Benchmark(
        Spec(name="mine", task="choice", headline=Headline("M-Avg", groups), **spec), list(questions), None
    )


def test_each_rule_is_over_the_questions_of_its_task():
    scores = score_rows(MIXED, ["s"], said(MIXED, lambda q: q.task != "yes_no" or q.type == "action"))["s"]
    rules = scores["rules"]
    assert list(rules) == ["choice-published", "choice-strict", "yes-no", "caption"]
    assert {name: (rule["correct"], rule["questions"], rule["accuracy"]) for name, rule in rules.items()} == {
        "choice-published": (8, 8, 1), "choice-strict": (8, 8, 1), "yes-no": (8, 16, 0.5), "caption": (4, 4, 1),
    }  # fmt: skip
    assert scores["questions"] == 28 and "headline" not in scores and "unscored" not in scores
    head, cells = (line.split("  ") for line in format_scores({"s": scores}).splitlines()[1:3])
    assert head[-2:] == ["yes-no, %", "caption, %"] and [cell.strip() for cell in cells if cell][-2:] == [
        "50.0",
        "100.0",
    ]


def test_what_is_not_answered_is_wrong_in_its_task():
    rows = said(MIXED, lambda q: True)
    rows[8] |= {"prediction": None, "error": "no such video"}  # the first of yes or no
    rows[9] |= {"prediction": "Perhaps"}
    scores = score_rows(MIXED, ["s"], rows[:-1])["s"]
    assert (scores["failed"], scores["not_asked"]) == (1, 1)
    assert scores["rules"]["yes-no"] == {"accuracy": 14 / 16, "correct": 14, "unparsable": 1, "questions": 16}
    assert scores["rules"]["caption"]["accuracy"] == 3 / 4


def test_a_task_that_only_a_judge_scores_is_counted():
    questions = [*MIXED, mixed("captioning", "action", 0)]
    rows = [
        *said(MIXED, lambda q: True),
        {"key": questions[-1].key, "setting": "s", "prediction": "A dog.", "error": None},
    ]
    scores = score_rows(questions, ["s"], rows, with_headline(questions, "form"))["s"]
    assert scores["unscored"] == 1 and scores["answered"] == 29 and "headline" not in scores
    assert "\nno offline score for 1 of the questions: these predictions need a judge" in format_scores({"s": scores})
    assert "right_by_video" not in scores


def test_the_headline_is_the_mean_of_its_groups():
    benchmark = with_headline(MIXED, "form")
    scores = score_rows(MIXED, ["s"], said(MIXED, lambda q: q.task == "yes_no"), benchmark)
    assert scores["s"]["headline"] == {
        "name": "M-Avg", "accuracy": pytest.approx(1 / 3), "together": 16 / 28, "groups": "3 forms", "missing": "",
    }  # fmt: skip
    lines = format_scores(scores).splitlines()
    assert lines[1].split("  ")[1:3] == ["M-Avg, %", "all questions, %"] and lines[2].split()[:3] == [
        "s",
        "33.3",
        "57.1",
    ]
    assert lines[-1] == "M-Avg: mean over 3 forms"
    lines = format_scores(scores, intervals(scores)).splitlines()
    assert "accuracy, %" in lines[1] and lines[2].split()[2] == "57.1" and "strict rule of each task" in lines[3]


def test_groups_may_have_several_columns_and_the_names_of_types():
    benchmark = with_headline(MIXED, "type", "form", types={"order": "what comes first"})
    rows = said(MIXED, lambda q: q.type == "order" and q.task == "choice")
    found = score_rows(MIXED, ["s"], rows, benchmark)["s"]["headline"]
    assert found["accuracy"] == pytest.approx(1 / 6) and found["groups"] == "6 groups by type and form"
    some = score_rows(MIXED[:4], ["s"], rows[:4], benchmark)["s"]["headline"]
    assert some["groups"] == "1 group by type and form"
    assert some["missing"] == (
        "no questions of: what comes first / choice, action / yes_no, what comes first / yes_no, "
        "action / caption_matching and 1 more"
    )


def test_a_group_that_a_limit_cuts_is_named():
    asked = MIXED[:10]
    benchmark = with_headline(MIXED, "form")
    scores = score_rows(asked, ["s"], said(asked, lambda q: True), benchmark)
    assert scores["s"]["headline"]["groups"] == "2 forms"
    assert format_scores(scores).endswith("\nno questions of: caption_matching; not all of: yes_no 2 of 16")


def test_the_headline_counts_strictly_and_what_failed():
    """`USA` is A by the published rule and nothing by the strict one; a failed and an unasked question are wrong."""
    questions = [mixed("choice", group, i) for group in ("action", "order") for i in range(4)]
    rows = said(questions, lambda q: True)
    rows[0] |= {"prediction": "A USA: best"}
    rows[1] |= {"prediction": None, "error": "broken"}
    found = score_rows(questions, ["s"], rows[:-1], with_headline(questions, "type"))["s"]
    assert found["rules"]["choice-published"]["correct"] == 6 and found["rules"]["choice-strict"]["correct"] == 5
    assert found["headline"]["accuracy"] == pytest.approx((2 / 4 + 3 / 4) / 2)


def test_scores_without_a_headline_are_as_they_were():
    benchmark = Benchmark(Spec(name="mine", task="choice"), QUESTIONS, None)
    assert score_rows(QUESTIONS, ["s"], ROWS, benchmark) == score_rows(QUESTIONS, ["s"], ROWS)
    assert set(score_rows(QUESTIONS, ["s"], ROWS)["s"]) == {
        "questions", "answered", "failed", "not_asked", "unparsable", "reasons", "rules", "right_by_video",
    }  # fmt: skip


def test_one_group_in_words():
    assert [count_groups(n, [name]) for n, name in ((1, "type"), (2, "category"), (3, "duration"))] == [
        "1 type", "2 categories", "3 durations",
    ]  # fmt: skip
