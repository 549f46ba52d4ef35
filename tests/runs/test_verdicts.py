from __future__ import annotations

from judged_runs import open_rows, write_run

from sfllava.evaluators.judges.match import MatchJudge
from sfllava.runs.judge import plan_judging
from sfllava.runs.judge_items import read_items
from sfllava.runs.verdicts import VerdictFile, read_aside, read_judge_info, waiting_contents


def entry(token, contents, collected):
    return {"token": token, "id": None, "collected": collected, "contents": contents}


def test_only_batches_that_are_not_collected_are_waited_for():
    batches = [entry("a", ["1", "2"], False), entry("b", ["3"], True), entry("c", ["2", "4"], False)]
    assert waiting_contents({"batches": batches}) == {"1", "2", "4"}
    assert waiting_contents({"batches": []}) == set()


def test_a_plan_counts_what_waits_apart_from_what_is_sent(tmp_path):
    run = write_run(tmp_path / "run", open_rows(5))
    items = read_items(run)
    contents = [item.request.content for item in items]
    with VerdictFile(run, "match-exact", {}, {}, items) as file:
        file.state["batches"] = [entry("a", contents[:2], False), entry("b", contents[2:3], True)]
        file.save()
        assert file.waiting() == set(contents[:2])
    assert waiting_contents(read_judge_info(run, "match-exact")) == set(contents[:2])
    plan = plan_judging(run, MatchJudge())
    assert (plan.items, plan.done, plan.failed, plan.waiting, plan.requests) == (5, 0, 0, 2, 3)


def test_stale_verdicts_are_set_aside_each_time(tmp_path):
    run = write_run(tmp_path / "run", open_rows(1))
    row = {"key": "open/0", "setting": "s", "rubric": "open", "correct": True, "score": None, "error": None}
    for content in ("old", "older"):
        with VerdictFile(run, "j", {}, {}, read_items(run)) as file:
            file.append([{**row, "content": content}])
        with VerdictFile(run, "j", {}, {}, read_items(run)) as file:
            assert not list(file.rows())
    assert [kept["content"] for kept in read_aside(run, "j")] == ["old", "older"]
