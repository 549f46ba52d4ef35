"""Benchmarks that name their own rubrics: scores from 1 to 5 with a headline, and captions by choice."""

from __future__ import annotations

import pytest
from grouped_runs import add_benchmark
from judged_runs import go, quick, verdicts, write_rows, write_run

from sfllava import cli
from sfllava.analysis.agreement import disagreements, judge_pairs, kappas
from sfllava.analysis.judge_scores import format_judge_scores, judge_scores, load_verdicts
from sfllava.analysis.loading import load_results
from sfllava.benchmarks.base import load_spec
from sfllava.benchmarks.spec import Headline, Spec
from sfllava.evaluators.judges.match import MatchJudge
from sfllava.plots.judges import judges_agreement
from sfllava.runs.judge import plan_judging
from sfllava.runs.judge_items import read_items, rubrics_by_type
from sfllava.runs.run_folder import RunError

OPEN = Spec(
    name="long_videos", task="describe", headline=Headline("G-Avg", ("type",)),
    rubrics={"sub_scene": ("ssc_accuracy", "ssc_relevance"), "summary": ("summary_completeness", "summary_reliability")},
)  # fmt: skip
CAPTIONS = Spec(name="captions", task="captioning", rubrics={"": ("captioning",)})
QUESTION = "Which?\nInformation A: {'action': 'dribbling'}\nInformation B: {'action': 'dunking'}\nGenerated Caption:"
JUDGE = "openai-judge-2026-01-01"


def long_rows(scenes, summaries):
    """Scenes of which every second is right, and summaries of which every fourth is."""
    return [
        {
            "key": f"long_videos/{kind}/{i}", "video": f"{kind}{i}", "type": kind, "question": f"what of {i}?",
            "answer": f"thing {i}.", "prediction": f"It is thing {i}." if i % period == 0 else "Nothing.",
        }
        for kind, count, period in (("sub_scene", scenes, 2), ("summary", summaries, 4)) for i in range(count)
    ]  # fmt: skip


def caption_rows(*said):
    common = {"question": QUESTION, "answer": "B. dunking", "type": "action", "task": "captioning"}
    return [
        {**common, "key": f"captions/{i}", "video": f"v{i}", "prediction": text} for i, text in enumerate(said)
    ]  # fmt: skip


@pytest.fixture
def long_run(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, OPEN)
    return write_run(tmp_path / "run", long_rows(20, 12), "long_videos")


def test_the_headline_is_the_mean_over_tasks_of_the_sum_of_two_criteria(server, long_run):
    server()
    assert go(long_run).complete
    table = judge_scores(load_verdicts(long_run)).set_index("rubric")
    assert list(table.index) == [*OPEN.rubrics["sub_scene"], *OPEN.rubrics["summary"], "G-Avg"]
    # a right answer scores 5, another 1
    assert table["score"].tolist() == pytest.approx([3, 3, 2, 2, ((3 + 3) + (2 + 2)) / 2])
    assert table["questions"].tolist() == [20, 20, 12, 12, 64]
    for rubric in table.index:
        row = table.loc[rubric]
        low, high = (2, 10) if rubric == "G-Avg" else (1, 5)
        assert low < row["score_low"] < row["score"] < row["score_high"] < high
    assert table["published"].isna().all() and table["accuracy"].isna().all()
    text = format_judge_scores(judge_scores(load_verdicts(long_run)))
    assert "  ssc_accuracy         score 3.00 [" in text and "  G-Avg                score 5.00 [" in text
    assert "truncated" not in text


def test_the_command_prints_it(server, long_run, capsys):
    server()
    assert cli.main(["judge", str(long_run), "--judge", "openai", "--model", "m-1", "--yes"]) == 0
    assert "G-Avg                score 5.00 [" in capsys.readouterr().out
    assert cli.main(["verdicts", str(long_run), "--figure", str(long_run / "f.svg")]) == 0
    assert "G-Avg                score 5.00 [" in capsys.readouterr().out and (long_run / "f.svg").stat().st_size > 3000


def test_what_inference_failed_on_has_the_lowest_score(server, long_run):
    server()
    rows = long_rows(20, 12)
    rows[0] |= {"prediction": None, "error": "no such video"}
    write_rows(long_run, rows)
    go(long_run)
    table = judge_scores(load_verdicts(long_run)).set_index("rubric")
    assert table.loc["ssc_accuracy", "score"] == pytest.approx((9 * 5 + 11 * 1) / 20)
    assert table.loc["ssc_accuracy", "no_prediction"] == 1 and table.loc["G-Avg", "no_prediction"] == 2


def test_a_task_that_was_not_asked_is_named_and_there_is_no_headline(server, monkeypatch, tmp_path):
    server()
    add_benchmark(monkeypatch, OPEN)
    run = write_run(tmp_path / "run", long_rows(6, 0), "long_videos")
    go(run)
    table = judge_scores(load_verdicts(run)).set_index("rubric")
    assert table.loc["G-Avg", "missing"] == "summary_completeness, summary_reliability"
    text = format_judge_scores(judge_scores(load_verdicts(run)))
    assert "G-Avg         none: no question of this run is judged by summary_completeness, summary_reliability" in text
    # more questions later: by the same judge
    write_rows(run, long_rows(6, 4))
    assert go(run).judged == 12 + 8 and judge_scores(load_verdicts(run))["missing"].tolist() == [""] * 5


def test_a_headline_waits_for_all_rubrics(server, long_run):
    one = server()
    go(long_run)
    file = long_run / f"verdicts-{JUDGE}.jsonl"
    file.write_text("".join(line for line in file.open() if '"summary_reliability"' not in line))
    table = judge_scores(load_verdicts(long_run)).set_index("rubric")
    assert (
        table.loc["G-Avg"].isna()["score"]
        and table.loc["G-Avg", "unjudged"] == 12
        and table.loc["G-Avg", "missing"] == ""
    )
    assert "G-Avg                nothing judged" in format_judge_scores(judge_scores(load_verdicts(long_run)))
    one.behave(status=0)
    assert go(long_run).requests == 12


def test_a_score_outside_of_the_scale_is_a_failed_verdict_and_left_out(server, long_run):
    """A 0 on a scale from 1 to 5 is asked for once more, and then counted as failed, neither as 0 nor as 1."""
    one = server(faults={"zero": 0.5})
    done = go(long_run)
    failed = [row for row in verdicts(long_run) if row["error"]]
    assert 5 < done.failed < 30 and len(failed) == done.failed and not done.complete
    assert {row["error"] for row in failed} == {"unreadable reply: score must be a number from 1 to 5, got '0'"}
    assert all(row["tries"] == 2 and row["score"] is None for row in failed)
    table = judge_scores(load_verdicts(long_run))
    assert table["failed"].tolist()[-1] == done.failed and table["score"].min() > 1.2
    one.behave(faults={})
    assert go(long_run).complete


def test_scores_from_one_to_five_are_compared(server, long_run):
    server()
    go(long_run)
    go(long_run, quick("another"))
    (pair,) = judge_pairs(verdicts := load_verdicts(long_run))
    assert pair.both == 64 and pair.agree == 1 and disagreements(verdicts).empty
    figure = judges_agreement(judge_scores(verdicts), kappas([pair]))
    assert figure.axes[0].get_xlabel() == "score (95 % interval)"


def test_which_rubrics_a_run_is_judged_by(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, OPEN)
    add_benchmark(monkeypatch, CAPTIONS)
    assert rubrics_by_type(write_run(tmp_path / "a", [], "long_videos")) == dict(OPEN.rubrics)
    assert rubrics_by_type(write_run(tmp_path / "b", [], "msvd")) == {"": ("open",)}
    assert rubrics_by_type(write_run(tmp_path / "c", [], "vcgbench")) == dict(load_spec("vcgbench").rubrics)
    items = read_items(write_run(tmp_path / "d", long_rows(2, 1), "long_videos"))
    assert [(item.key.split("/")[1], item.rubric, item.type) for item in items[-2:]] == [
        ("summary", "summary_completeness", "summary"), ("summary", "summary_reliability", "summary"),
    ]  # fmt: skip
    add_benchmark(monkeypatch, Spec(name="by_rule", task="yes_no"))
    with pytest.raises(RunError, match="by_rule names no rubrics: its predictions need no judge"):
        read_items(write_run(tmp_path / "e", [], "by_rule"))
    rows = [long_rows(1, 0)[0] | {"type": "9_summary"}]
    with pytest.raises(RunError, match="long_videos/sub_scene/0: type must be sub_scene, summary, got '9_summary'"):
        read_items(write_run(tmp_path / "f", rows, "long_videos"))


def test_captions_are_judged_by_the_option_that_they_fit(server, monkeypatch, tmp_path):
    one = server()
    add_benchmark(monkeypatch, CAPTIONS)
    run = write_run(
        tmp_path / "run", caption_rows("A man dunking.", "A man dribbling.", "A man.", "dunking, dribbling"), "captions"
    )
    assert go(run).complete
    rows = verdicts(run)
    assert [(row["correct"], row.get("chosen"), row["score"]) for row in sorted(rows, key=lambda row: row["key"])] == [
        (True, 1, None), (False, 0, None), (False, None, None), (False, None, None),
    ]  # fmt: skip
    sent = one.counts()["seen"]["body"]["messages"][1]["content"]
    assert "A. {'action': 'dribbling'}\nB. {'action': 'dunking'}\n" in sent and "Information" not in sent
    (row,) = judge_scores(load_verdicts(run)).to_dict("records")
    assert (row["rubric"], row["accuracy"], row["judged"]) == ("captioning", 25, 4)
    assert (
        "captioning  25.0 % [" in (text := format_judge_scores(judge_scores(load_verdicts(run))))
        and "score" not in text
    )
    assert load_results(run, JUDGE)["correct"].tolist() == [True, False, False, False]
    assert cli.main(["compare", str(run), "--judge", JUDGE]) == 0


def test_a_caption_s_options_may_be_the_question_s_own(server, monkeypatch, tmp_path):
    server()
    add_benchmark(monkeypatch, CAPTIONS)
    rows = caption_rows("He is dunking.")
    rows[0] |= {
        "question": "Write a caption.",
        "options": ["{'a': 'dunking'}", "{'a': 'dribbling'}"],
        "answer": "A. dunking",
    }
    run = write_run(tmp_path / "run", rows, "captions")
    go(run)
    assert load_results(run, JUDGE)["correct"].tolist() == [True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "Write a caption."}, "question captions/0: needed 2 to 26 options, got 0"),
        ({"answer": "C. sleeping"}, "question captions/0: 'C. sleeping' is none of its 2 options"),
    ],
)
def test_a_caption_that_cannot_be_judged_is_named(monkeypatch, tmp_path, change, message):
    add_benchmark(monkeypatch, CAPTIONS)
    run = write_run(tmp_path / "run", [caption_rows("x")[0] | change], "captions")
    with pytest.raises(RunError, match=message):
        plan_judging(run, quick())
    with pytest.raises(RunError, match=message):
        go(run, MatchJudge())
