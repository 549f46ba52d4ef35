"""Tables from columns have what a plain reading of the same rows and verdicts gives."""

from __future__ import annotations

import json
import random

import numpy as np
import pandas as pd
import pytest
from judged_runs import open_rows, vcgbench_rows, write_run

from sfllava.analysis import stats
from sfllava.analysis.agreement import disagreements, judge_pairs
from sfllava.analysis.differences import paired_differences
from sfllava.analysis.judge_scores import judge_scores, load_verdicts
from sfllava.analysis.loading import load_results
from sfllava.evaluators.choice import parse_strict
from sfllava.evaluators.judges.base import JudgeRequest
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.runs.judge_items import read_items
from sfllava.runs.run_folder import read_rows
from sfllava.runs.verdicts import read_verdicts, verdicts_path

VCGBENCH = {"generic": ("CI", "DO", "CU"), "temporal": ("TU",), "consistency": ("CO",)}
TEXTS = ["a dog", "ein Hund läuft", "犬 😀", 'say "no"\n', "caf\udce9", ""]


def plain_items(run, by_type):
    """What a run has to judge, row by row: the key, the setting, the rubric, and the rows that are judged together."""
    found, firsts = [], {}
    for row in read_rows(run):
        for rubric in by_type.get(row["type"], by_type.get("", ())):
            stem, _, part = row["key"].rpartition("/")
            if rubric != "CO":
                found.append((row["key"], row["setting"], rubric, (row,)))
            elif (other := firsts.pop((stem, row["setting"]), None)) is None:
                firsts[stem, row["setting"]] = row
            else:
                found.append((stem, row["setting"], rubric, (row, other) if part == "1" else (other, row)))
    return found


def content_of(rubric, rows):
    texts = tuple(row["question"] for row in rows), rows[0]["answer"], tuple(row["prediction"] for row in rows)
    return JudgeRequest(load_rubric(rubric), *texts).content


def plain_verdicts(run, judge, by_type):
    """The rows of `load_verdicts`, by dictionaries."""
    verdicts = {(v["key"], v["setting"], v["rubric"]): v for v in read_verdicts(verdicts_path(run, judge))}
    table = []
    for key, setting, rubric, rows in plain_items(run, by_type):
        row = {"judge": judge, "key": key, "setting": setting, "rubric": rubric}
        row |= {name: rows[0][name] for name in ("video", "type")}
        verdict, scale = verdicts.get((key, setting, rubric)), load_rubric(rubric).head.scale
        if any(each["error"] or each["prediction"] is None for each in rows):
            row |= {"question": "", "answer": "", "prediction": "", "state": "no prediction"}
            row |= {"correct": False if rubric == "open" else None, "score": scale and scale[0]}
        else:
            row |= {name: " / ".join(each[name] for each in rows) for name in ("question", "prediction")}
            row |= {"answer": rows[0]["answer"], "correct": None, "score": None, "state": "unjudged"}
            if verdict and verdict["content"] == content_of(rubric, rows):
                row["state"] = "failed" if verdict["error"] else "judged"
                row |= {} if verdict["error"] else {"correct": verdict["correct"], "score": verdict["score"]}
        table.append(row)
    return table


def write_judge(run, name, by_type, seed):
    """Verdicts in another order than the predictions, some failed, stale, missing, or on no question of the run."""
    chance, lines = random.Random(seed), []
    for key, setting, rubric, rows in plain_items(run, by_type):
        if any(row["prediction"] is None for row in rows) or chance.random() < 0.1:
            continue
        correct = chance.random() < 0.6 if rubric == "open" else None
        verdict = {"key": key, "setting": setting, "rubric": rubric, "content": content_of(rubric, rows)}
        verdict |= {"correct": correct, "score": chance.choice([0, 2.5, 4, 5]), "error": None}
        if chance.random() < 0.1:
            verdict |= {"correct": None, "score": None, "error": "HTTP 500"}
        elif chance.random() < 0.1:
            verdict["content"] = "0" * 32
        lines.append(json.dumps(verdict) + "\n")
    other = {"setting": "s", "rubric": "open", "content": "x", "correct": True, "score": 5, "error": None}
    lines += [json.dumps({"key": f"elsewhere/{i}", **other}) + "\n" for i in range(3)]
    chance.shuffle(lines)
    verdicts_path(run, name).write_text("".join(lines))


def cases(name):
    chance = random.Random(1)
    if name == "open":
        rows = [row | {"question": chance.choice(TEXTS)} for setting in "sab" for row in open_rows(60, setting)]
        for row in rows:
            row["prediction"] = chance.choice([*TEXTS, None])
            row["error"] = chance.choice(["broken", "caf\udce9: no"]) if row["prediction"] is None else None
        return "msvd", rows, {"": ("open",)}
    rows = vcgbench_rows(30, failed={"vcgbench/temporal/3", "vcgbench/consistency/5/2"})
    rows += [row | {"setting": "b", "prediction": chance.choice(TEXTS)} for row in vcgbench_rows(30)]
    chance.shuffle(rows)
    return "vcgbench", rows[:-3], VCGBENCH


@pytest.fixture(params=["open", "vcgbench"])
def judged(request, tmp_path):
    benchmark, rows, by_type = cases(request.param)
    run = write_run(tmp_path / "run", rows, benchmark)
    for seed, name in enumerate(("one", "other", "third")):
        write_judge(run, name, by_type, seed)
    return run, by_type


def records(table):
    found = table.astype(object).where(table.notna(), None)
    return found.to_dict("records")


def test_verdicts_and_items_are_those_of_a_plain_reading(judged):
    run, by_type = judged
    expected = [row for name in ("one", "other", "third") for row in plain_verdicts(run, name, by_type)]
    assert len({row["state"] for row in expected}) == 4
    assert records(load_verdicts(run)) == [{name: row[name] for name in load_verdicts(run)} for row in expected]
    for item, (key, setting, rubric, rows) in zip(read_items(run), plain_items(run, by_type), strict=True):
        assert (item.row_key, item.video, item.type) == ((key, setting, rubric), rows[0]["video"], rows[0]["type"])
        errors = [row["error"] for row in rows if row["error"]]
        assert item.error == (errors[0].replace("\udce9", "\\udce9") if errors else None)
        assert (item.request is None) == bool(errors)
        if item.request:
            assert item.request.content == content_of(rubric, rows)


def test_disagreements_are_those_of_a_pivot(judged):
    run, by_type = judged
    rows = [row for name in ("one", "other", "third") for row in plain_verdicts(run, name, by_type)]
    table = pd.DataFrame([row for row in rows if row["state"] == "judged"], dtype=object)
    decided = by_type == {"": ("open",)}
    table["given"] = table["correct"].map({True: "yes", False: "no"}) if decided else table["score"].astype(float)
    about = ["key", "setting", "rubric", "question", "answer", "prediction"]
    wide = table.pivot(index=about, columns="judge", values="given")
    spread = wide.nunique(axis=1) > 1 if decided else wide.max(axis=1) - wide.min(axis=1) > 1
    differing = wide[spread].astype(object).where(wide[spread].notna(), None)
    expected = [dict(zip(about, at)) | row for at, row in zip(differing.index, differing.to_dict("records"))]
    assert len(expected) > 5 and records(disagreements(load_verdicts(run))) == expected


def test_pairs_of_judges_are_those_of_a_join(judged):
    run, by_type = judged
    for pair in judge_pairs(load_verdicts(run)):
        said = []
        for name in (pair.one, pair.other):
            rows = [row for row in plain_verdicts(run, name, by_type) if row["state"] == "judged"]
            said.append({(row["key"], row["setting"], row["rubric"]): row for row in rows})
        both = said[0].keys() & said[1].keys()
        column = "correct" if by_type == {"": ("open",)} else "score"
        given = [[int(one[key][column] + 0.5) for key in both] for one in said]
        expected = np.zeros(pair.confusion.shape, int)
        np.add.at(expected, tuple(given), 1)
        assert pair.both == len(both) and pair.confusion.to_numpy().tolist() == expected.tolist()


def test_scores_are_means_over_the_same_rows(judged):
    run, by_type = judged
    scores = judge_scores(load_verdicts(run))
    for row in scores[scores["rubric"] != "average"].to_dict("records"):
        same = [
            each for each in plain_verdicts(run, row["judge"], by_type)
            if (each["setting"], each["rubric"]) == (row["setting"], row["rubric"])
        ]  # fmt: skip
        known = [each for each in same if each["state"] in ("judged", "no prediction")]
        found = stats.mean(np.array([e["score"] for e in known], float), np.array([e["video"] for e in known]), 0, 5)
        assert (row["score"], row["score_low"]) == pytest.approx((found.mean, found.low)) and row["questions"] == len(
            same
        )


def test_results_are_those_of_a_plain_reading(tmp_path):
    chance, rows = random.Random(2), []
    for i in range(300):
        options = [["a", "b", "c"], ["c", "b", "a"], ["b", "b"]][i % 3]
        said = chance.choice(["A", "(B) b", "C. x", "because", "", None])
        groups = {"duration": chance.choice(["short", "long", ""])} if i % 4 else {}
        more = {"groups": groups} if i % 5 else {}
        rows.append({
            "key": f"nextqa/{i // 2}", "setting": "st"[i % 2], "video": f"v{i // 9}", "type": "TN" if i % 3 else "??",
            "question": "?", "answer": options[i % 2], "options": options, "prediction": said,
            "visual_tokens": None if said is None else 8 + i % 2, "error": None if i % 7 or said else "broken",
            "seconds": {"a": i / 7, "b": 0.1} if i % 6 else {}, **more,
        })  # fmt: skip
    run = write_run(tmp_path / "run", rows, "nextqa")
    table = records(load_results(run))
    for row, found in zip(read_rows(run), table, strict=True):
        reason = row["error"] or ("no prediction" if row["prediction"] is None else "")
        chosen = None if reason else parse_strict(row["prediction"], len(row["options"]))
        assert {name: found[name] for name in ("run", "benchmark", "setting", "name", "key", "video")} == {
            "run": "run", "benchmark": "nextqa", "name": row["setting"],
            **{name: row[name] for name in ("setting", "key", "video")},
        }  # fmt: skip
        assert found["type"] == ("before and after" if row["type"] == "TN" else "??")
        assert found["duration"] == row.get("groups", {}).get("duration", "") and found["reason"] == reason
        assert found["tokens"] == row["visual_tokens"] and found["failed"] == bool(reason)
        assert found["seconds"] == (pytest.approx(sum(row["seconds"].values())) if row["seconds"] else None)
        assert found["correct"] == (chosen is not None and row["options"][chosen] == row["answer"])
        assert found["empty"] == (row["prediction"] == "" and not reason)
        assert found["unparsable"] == (not reason and chosen is None and not found["empty"])


def test_differences_do_not_depend_on_the_order_of_rows_nor_on_other_settings(tmp_path):
    rows = [row | {"type": f"t{i % 3}"} for setting in "abc" for i, row in enumerate(open_rows(120, setting))]
    for i, row in enumerate(rows):
        row["prediction"] = row["answer"] if i * 7919 % 101 % 3 else "no"
    tables = []
    for number in range(3):
        random.Random(number).shuffle(rows)
        results = load_results(write_run(tmp_path / f"run{number}", rows, "open"))
        tables.append(
            [paired_differences(results, groups=groups).set_index(["setting", "other"]) for groups in ((), ("type",))]
        )
    for plain, grouped in tables:
        for setting, other in (("a", "b"), ("b", "c"), ("a", "c")):
            for table, (first, _) in ((plain, tables[0]), (grouped, tables[0][::-1])):
                way = (setting, other) if (setting, other) in table.index else (other, setting)
                same = way in first.index
                one, two = table.loc[way], first.loc[way if same else way[::-1]]
                assert one["points"] == pytest.approx(two["points"] if same else -two["points"])
                assert one["p"] == pytest.approx(two["p"]) and one["videos"] == 30
