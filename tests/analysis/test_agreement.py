from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from judged_runs import open_rows, vcgbench_rows, write_run

from sfllava.analysis.agreement import (
    disagreements,
    format_pairs,
    judge_pairs,
    kappa,
    kappa_interval,
    kappas,
)
from sfllava.analysis.judge_scores import format_judge_scores, judge_scores, load_verdicts
from sfllava.plots.judges import judges_agreement
from sfllava.runs.judge_items import read_items
from sfllava.runs.run_folder import RunError


def write_verdicts(run, name, say):
    """say(unit) -> (correct, score), an error, or None for no row."""
    rows = []
    for unit in read_items(run):
        said = say(unit) if unit.request else None
        if said is None:
            continue
        correct, score = (None, None) if isinstance(said, str) else said
        rows.append({
            "key": unit.key, "setting": unit.setting, "rubric": unit.rubric, "content": unit.request.content,
            "correct": correct, "score": score, "error": said if isinstance(said, str) else None,
        })  # fmt: skip
    (run / f"verdicts-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def number(unit):
    return int(unit.key.split("/")[-1])


def table_of(run, *judges):
    return judge_scores(load_verdicts(run, judges)).set_index(["judge", "rubric"])


def test_what_each_judge_says_over_all_questions(tmp_path):
    rows = open_rows(40)
    for i in (38, 39):
        rows[i] |= {"prediction": None, "error": "no such video"}
    run = write_run(tmp_path / "run", rows)
    write_verdicts(run, "kind", lambda u: (True, 4.6))
    write_verdicts(
        run, "torn", lambda u: "HTTP 500" if number(u) < 4 else None if number(u) < 8 else (number(u) % 2 == 0, 2.5)
    )
    table = table_of(run)
    kind, torn = table.loc[("kind", "open")], table.loc[("torn", "open")]
    # what inference failed on is wrong, and scores 0
    assert kind["accuracy"] == pytest.approx(100 * 38 / 40) and kind["score"] == pytest.approx(4.6 * 38 / 40)
    assert (kind["questions"], kind["judged"], kind["no_prediction"], kind["failed"], kind["unjudged"]) == (
        40,
        38,
        2,
        0,
        0,
    )
    # where the judge failed or has not judged yet, the verdict is unknown: neither right nor wrong
    assert (torn["judged"], torn["no_prediction"], torn["failed"], torn["unjudged"]) == (30, 2, 4, 4)
    assert torn["accuracy"] == pytest.approx(100 * 15 / 32)
    # the published evaluation cuts to whole numbers and leaves out what failed
    assert (kind["published"], torn["published"]) == (4, 2)
    assert kind["accuracy_low"] < kind["accuracy"] <= kind["accuracy_high"]
    text = format_judge_scores(judge_scores(load_verdicts(run)))
    assert "38 judged, 2 no prediction" in text and "4 failed and 4 unjudged are left out of the means" in text
    assert "score 4.37 [" in text and "4.00 with scores truncated as published" in text


def test_vcgbench_s_five_means_and_their_average(tmp_path):
    rows = vcgbench_rows(40, failed={"vcgbench/temporal/0"})
    means = {"CI": 3.5, "DO": 2.25, "CU": 4.0, "TU": 1.9, "CO": 3.0}
    run = write_run(tmp_path / "run", rows, "vcgbench")
    write_verdicts(run, "j", lambda u: (None, means[u.rubric] + 0.5 * (int(u.video[1:]) % 2)))
    table = table_of(run).loc["j"]
    for rubric in ("CI", "DO", "CU", "CO"):
        assert table.loc[rubric, "score"] == pytest.approx(means[rubric] + 0.25)
        # half of the videos have half a point more; intervals draw whole videos
        assert table.loc[rubric, "score_high"] - table.loc[rubric, "score_low"] == pytest.approx(
            2 * 1.96 * 0.25 / 40**0.5, rel=0.15
        )
    # v0, without half a point more, has no temporal prediction and scores 0
    assert table.loc["TU", "score"] == pytest.approx((1.9 * 19 + 2.4 * 20) / 40)
    assert table.loc["TU", "no_prediction"] == 1
    five = [table.loc[rubric, "score"] for rubric in means]
    assert table.loc["average", "score"] == pytest.approx(np.mean(five))
    # all questions of a video go together: the average of five equal swings is as wide as one of them
    width = table.loc["average", "score_high"] - table.loc["average", "score_low"]
    assert width == pytest.approx(2 * 1.96 * 0.25 / 40**0.5, rel=0.2)
    whole = [np.mean([int(means[r] + 0.5 * (i % 2)) for i in range(40) if (r, i) != ("TU", 0)]) for r in means]
    assert [table.loc[rubric, "published"] for rubric in means] == pytest.approx(whole)
    assert table.loc["average", "published"] == pytest.approx(np.mean(whole))
    assert np.isnan(table.loc["CI", "accuracy"])


def test_an_average_needs_all_five(tmp_path):
    run = write_run(tmp_path / "run", vcgbench_rows(3), "vcgbench")
    write_verdicts(run, "j", lambda u: None if u.rubric == "TU" else (None, 3.0))
    table = table_of(run).loc["j"]
    assert np.isnan(table.loc["TU", "score"]) and np.isnan(table.loc["average", "score"])
    assert table.loc["TU", "unjudged"] == 3 and "TU       nothing judged" in format_judge_scores(
        judge_scores(load_verdicts(run))
    )


def test_kappa_by_hand():
    tables = np.array([[[45, 15], [25, 15]], [[10, 0], [0, 30]], [[0, 5], [5, 0]], [[7, 0], [0, 0]]], float)
    assert kappa(tables)[:3] == pytest.approx([0.1304348, 1, -1]) and np.isnan(kappa(tables)[3])
    weighted = np.array([[[2, 1, 0], [0, 2, 1], [1, 0, 3]]], float)
    # 1 - sum(w o) / sum(w e), w the squared distance
    seen = 1 + 1 + 4
    expected = sum((i - j) ** 2 * r * c for i, r in enumerate((3, 3, 4)) for j, c in enumerate((3, 3, 4))) / 10
    assert kappa(weighted) == pytest.approx([1 - seen / expected])


def test_two_judges_on_the_same_predictions(tmp_path):
    run = write_run(tmp_path / "run", open_rows(400))
    write_verdicts(run, "a", lambda u: (number(u) % 2 == 0, 3.0))
    write_verdicts(
        run, "b", lambda u: "HTTP 500" if number(u) >= 300 else ((number(u) % 2 == 0) != (number(u) % 10 == 0), 3.0)
    )
    verdicts = load_verdicts(run)
    (pair,) = judge_pairs(verdicts)
    # 30 of 300 are no by b and yes by a
    assert (pair.both, pair.agree) == (300, 0.9)
    assert pair.confusion.to_numpy().tolist() == [[150, 0], [30, 120]]
    middle, low, high = pair.kappa
    assert middle == pytest.approx(0.8) and low < 0.8 < high and 0.05 < high - low < 0.3
    differ = disagreements(verdicts)
    assert len(differ) == 30 and set(differ["a"]) == {"yes"} and set(differ["b"]) == {"no"}
    assert differ.iloc[0][["question", "answer", "prediction"]].tolist() == [
        "what is number 0?",
        "thing 0",
        "it is thing 0",
    ]
    assert "a and b: 300 judged by both, kappa 0.800 [" in format_pairs([pair])


def test_judges_that_agree_on_a_few_videos_may_differ_on_others(tmp_path):
    rows = [row | {"video": f"v{i % 5}"} for i, row in enumerate(open_rows(20))]
    run = write_run(tmp_path / "run", rows)
    for name in ("a", "b"):
        write_verdicts(run, name, lambda u: (number(u) % 2 == 0, 3.0))
    (pair,) = judge_pairs(load_verdicts(run))
    assert pair.kappa[0] == 1 and pair.kappa[1] < 0.5
    assert table_of(run).loc[("a", "open"), "score_low"] < 2, "equal scores of five videos are no certainty"


@pytest.mark.parametrize("videos", [5, 20])
def test_kappa_s_interval_covers_it(videos):
    """docs/concepts/intervals.md has more; the percentile bootstrap of whole videos covers 83 and 91 of 100 here."""
    rng = np.random.default_rng(0)

    def judged(n):
        """Two judges that are right on 80 to 90 of 100, by video, about 1 to 12 answers each."""
        owner = np.repeat(np.arange(n), rng.integers(1, 13, n))
        truth = rng.random(len(owner)) < rng.beta(2, 1.5, n)[owner]
        said = [np.where(rng.random(len(owner)) < rng.beta(8.5, 1.5, n)[owner], truth, ~truth) for _ in "ab"]
        tables = np.zeros((n, 4))
        np.add.at(tables, (owner, 2 * said[0] + said[1]), 1)
        return tables

    true = kappa(judged(100_000).sum(0).reshape(1, 2, 2))[0]
    covered = 0
    for _ in range(400):
        _, low, high = kappa_interval(judged(videos), 2)
        covered += low <= true <= high
    assert covered >= 0.91 * 400, covered


def test_verdicts_on_predictions_that_are_no_more_do_not_count(tmp_path):
    run = write_run(tmp_path / "run", open_rows(10))
    write_verdicts(run, "a", lambda u: (True, 5.0))
    text = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(text.replace("it is thing 1", "another"))
    row = table_of(run).loc[("a", "open")]
    assert (row["judged"], row["unjudged"]) == (9, 1)


def test_scores_are_compared_by_weight(tmp_path):
    run = write_run(tmp_path / "run", vcgbench_rows(30), "vcgbench")
    exact = lambda u: (None, float(int(u.video[1:]) % 6))  # noqa: E731
    write_verdicts(run, "exact", exact)
    write_verdicts(run, "near", lambda u: (None, min(5.0, exact(u)[1] + 0.6)))
    write_verdicts(run, "flat", lambda u: (None, 3.0))
    found = {(pair.one, pair.other): pair for pair in judge_pairs(load_verdicts(run))}
    assert 0.7 < found["exact", "near"].kappa[0] < 1 and found["exact", "near"].agree == pytest.approx(1 / 6)
    assert found["exact", "flat"].kappa[0] == pytest.approx(0)
    assert found["exact", "near"].confusion.to_numpy().sum() == 150 and list(found["exact", "near"].confusion) == list(
        "012345"
    )
    differ = disagreements(load_verdicts(run, ["exact", "near"]))
    assert differ.empty  # never more than a point
    assert len(disagreements(load_verdicts(run, ["exact", "flat"]))) == 75  # 0, 1 and 5


def test_judges_that_always_say_the_same_have_no_kappa(tmp_path):
    run = write_run(tmp_path / "run", open_rows(8))
    for name in ("a", "b"):
        write_verdicts(run, name, lambda u: (True, 5.0))
    (pair,) = judge_pairs(load_verdicts(run))
    assert (
        np.isnan(pair.kappa[0]) and pair.agree == 1 and "undefined (both always say the same)" in format_pairs([pair])
    )


def test_the_figure_shows_every_judge_and_kappa(tmp_path):
    run = write_run(tmp_path / "run", open_rows(40))
    write_verdicts(run, "a", lambda u: (number(u) % 2 == 0, 3.0))
    write_verdicts(run, "b", lambda u: (number(u) % 4 == 0, 3.0))
    verdicts = load_verdicts(run)
    figure = judges_agreement(judge_scores(verdicts), kappas(judge_pairs(verdicts)))
    means, heat = figure.axes
    assert [label.get_text() for label in means.get_yticklabels()] == ["a  (1)", "b  (2)"]
    assert sorted(line.get_xdata()[0] for line in means.lines[:1]) == [50]
    assert means.get_xlabel() == "accuracy, % (95 % interval)"
    assert {text.get_text() for text in heat.texts} == {"0.50"} and heat.get_title() == "Cohen's kappa"
    single = judges_agreement(judge_scores(load_verdicts(run, ["a"])), kappas([]))
    assert not single.axes[1].axison


@pytest.mark.slow
def test_the_command(tmp_path):
    run = write_run(tmp_path / "run", open_rows(40))
    write_verdicts(run, "a", lambda u: (number(u) % 2 == 0, 3.0))
    write_verdicts(run, "b", lambda u: (number(u) % 4 == 0, 3.0))
    line = [sys.executable, "-m", "sfllava.cli", "verdicts", str(run)]
    more = ["--figure", str(tmp_path / "f.svg"), "--differing", str(tmp_path / "d.csv")]
    out = subprocess.run([*line, *more], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert (
        "kappa 0.500" in out.stdout and "10 questions on which they differ" in out.stdout and " 50.0 % [" in out.stdout
    )
    assert "<svg" in (tmp_path / "f.svg").read_text() and len(pd.read_csv(tmp_path / "d.csv")) == 10
    out = subprocess.run([*line, "--judge", "c"], capture_output=True, text=True)
    assert out.returncode == 1 and "no verdicts by c; there are a, b" in out.stderr
    out = subprocess.run([*line, "--figure", "x.jpg"], capture_output=True, text=True)
    assert out.returncode == 1 and "needed a file that ends in .svg, .pdf or .png" in out.stderr
    empty = write_run(tmp_path / "empty", open_rows(2))
    out = subprocess.run([*line[:-1], str(empty)], capture_output=True, text=True)
    assert out.returncode == 1 and "no verdicts yet; `sfllava judge` makes them" in out.stderr
    with pytest.raises(RunError, match=r"line 1: not a row of verdicts"):
        (run / "verdicts-a.jsonl").write_text("[]\n")
        load_verdicts(run)


def test_vcgbench_from_predictions_to_five_numbers(server, tmp_path):
    one = server()
    run = write_run(tmp_path / "run", vcgbench_rows(6), "vcgbench")
    line = [sys.executable, "-m", "sfllava.cli"]
    judge = [*line, "judge", str(run), "--judge", "openai", "--model", "m-1", "--yes"]
    assert subprocess.run(judge, env=one.environment(), capture_output=True).returncode == 0
    out = subprocess.run([*line, "verdicts", str(run)], capture_output=True, text=True)
    assert out.returncode == 0 and out.stdout.startswith("openai-m-1, s\n")
    joined = re.sub(r"\n {3,}", " ", out.stdout)  # a line that is wider than the terminal goes on below
    said = {words[0]: words for words in map(str.split, joined.splitlines()[1:])}
    assert list(said) == ["CI", "DO", "CU", "TU", "CO", "average"]
    assert [said[name][2] for name in said] == ["4.80", "4.80", "4.80", "0.30", "2.55", "3.45"]
    assert "2.80 with scores truncated as published; 30 judged" in joined  # (4 + 4 + 4 + 0 + 2) / 5
