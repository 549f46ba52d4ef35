"""Output folders of the published code, read into run folders: predictions, judge's files, and what is wrong in them."""

from __future__ import annotations

import json

import pytest
from conftest import CLIPS
from published_layout import dump, write_outputs, write_playground
from shell import sfllava

from sfllava.analysis.loading import load_results
from sfllava.benchmarks import load_benchmark
from sfllava.evaluators.judges.match import MatchJudge
from sfllava.models.load import load_model
from sfllava.published.importing import NOT_THERE, import_outputs
from sfllava.published.judged import NOT_JUDGED
from sfllava.published.literal import parse_value
from sfllava.published.outputs import OutputError
from sfllava.runs.evaluate import evaluate
from sfllava.runs.judge import judge
from sfllava.runs.run_folder import RunError, read_rows
from sfllava.settings import Setting
from sfllava.types import SfllavaError

JUDGE = "some-judge-0125"


def theirs(question, pred):
    """A row as the published code writes it."""
    row = {"question": question.text, "id": question.id, "answer": question.answer, "pred": pred}
    if question.options:
        row |= {"task_name": "X", "answer_number": question.answer_index, "candidates": list(question.options)}
    return row


def verdicts(run, judge=JUDGE):
    return [json.loads(line) for line in (run / f"verdicts-{judge}.jsonl").read_text().splitlines()]


@pytest.fixture
def msvd(tmp_path):
    """Five questions, of which two share an id, as in TGIF."""
    rows = [("a", "1", "what?", "cat"), ("a", "1", "where?", "home"), ("b", "2", "what?", "dog")]
    rows += [("b", "3", "who?", "man"), ("c", "4", "when?", "now")]
    text = "video_name,question_id,question,answer\n" + "".join(",".join(row) + "\n" for row in rows)
    (tmp_path / "MSVD_QA.csv").write_text(text)
    return load_benchmark("msvd", tmp_path / "MSVD_QA.csv")


def outputs(tmp_path, benchmark, preds, extra=()):
    folder = tmp_path / "artifacts" / "MSVD_Zero_Shot_QA" / "cfg-50_frms"
    rows = [theirs(q, pred) for q, pred in zip(benchmark.questions, preds) if pred is not None]
    write_outputs(folder, [*rows, *extra])
    return folder


def judge_files(tmp_path, replies, benchmark, preds):
    folder = tmp_path / "temp" / "MSVD_Zero_Shot_QA" / "cfg-50_frms" / JUDGE
    folder.mkdir(parents=True, exist_ok=True)
    for question, pred, reply in zip(benchmark.questions, preds, replies):
        if reply is not None:  # where ids repeat, the later file replaces the earlier one, as in the published code
            qa = {"q": question.text, "a": question.answer, "pred": pred}
            (folder / f"{question.id}.json").write_text(json.dumps([reply, qa]))
    return folder


def test_an_imported_run_scores_as_ours_on_the_same_predictions(shared, tmp_path):
    """Our own answers, written as the published code would, come back with our own scores: open and choice."""
    write_playground(tmp_path, shared / "qa", [shared / "clips" / f"{name}.mp4" for name in CLIPS[:1]], count=4)
    model, setting = load_model("tiny"), Setting(4, "slowfast-slow_1frms_concat-fast_2x2")
    for name, data, place in (
        ("tgif", "video_qa/TGIF_Zero_Shot_QA/mp4", "TGIF_Zero_Shot_QA"),
        ("nextqa", "multiple_choice_qa/NExTQA/video", "NExTQA"),
    ):
        benchmark = load_benchmark(name, videos=tmp_path / "playground/data" / data, root=tmp_path / "playground")
        ours = evaluate(model, benchmark, setting, tmp_path / "ours" / name, max_new_tokens=6, progress=False)
        rows = list(read_rows(ours.path))
        by_key = {row["key"]: row["prediction"] for row in rows}
        write_outputs(
            tmp_path / "outputs/artifacts" / place / "cfg", [theirs(q, by_key[q.key]) for q in benchmark.questions]
        )
        out = sfllava(
            "import", "outputs/artifacts", "--benchmark", name, "--root", "playground", "--out", f"imported/{name}",
            "--frames", 4, "--aggregation", "slowfast-slow_1frms_concat-fast_2x2", cwd=tmp_path,
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        assert "4 rows read, 0 repeated, 0 not usable" in out.stdout
        assert json.loads((tmp_path / "imported" / name / "scores.json").read_text()) == ours.scores
        got = {row["key"]: row["prediction"] for row in read_rows(tmp_path / "imported" / name)}
        assert got == by_key


def test_every_question_stays_and_all_that_is_wrong_is_named(msvd, tmp_path):
    q = msvd.questions
    extra = [
        theirs(q[0], "a cat"),  # the same again
        theirs(q[2], "a wolf"),  # again, with another prediction
        {**theirs(q[3], "x"), "id": "99"},
        {**theirs(q[3], "x"), "answer": "woman"},
        {**theirs(q[3], "x"), "pred": 7},
        {k: v for k, v in theirs(q[3], "x").items() if k != "pred"},
        ["no object"],
    ]
    folder = outputs(tmp_path, msvd, ["a cat", "home", "dog", None, ""], extra)
    with (folder / "merge.jsonl").open("ab") as file:
        file.write(b'{"question": "cut off\n\n')
        file.write(b'{"question": "caf\xe9"}\n')
        file.write(repr(theirs(q[3], 'it\'s a "man"')).encode() + b"\n")  # as a Python literal
        file.write(b"__import__('os').system('touch hacked')\n")
    found = import_outputs(folder, msvd, tmp_path / "run")
    assert found.outputs.rows == 15 and len(found.outputs.bad) == 8 and len(found.outputs.repeated) == 2
    reasons = "\n".join(found.outputs.bad)
    for reason in (
        "no question of the benchmark has id '99' and the text 'who?'",
        "question '3': needed the answer 'man', got 'woman'",
        "pred: needed text, got 7",
        "pred: needed text, got no such field",
        "needed an object, got ['no object']",
        "line 12: not readable as JSON",
        "line 14: 'utf-8' codec can't decode",
        "line 16: not readable as JSON",
    ):
        assert reason in reasons, reasons
    assert "line 6: msvd/2 again, with another prediction; the first counts" in "\n".join(found.outputs.repeated)
    rows = list(read_rows(tmp_path / "run"))
    assert [row["key"] for row in rows] == [question.key for question in q]
    assert [row["prediction"] for row in rows] == ["a cat", "home", "dog", 'it\'s a "man"', ""]
    assert [row["error"] for row in rows] == [None] * 5
    assert rows[3]["imported"].endswith("merge.jsonl, line 15") and rows[0]["setting"] == "cfg-50_frms"
    assert "not used: " in (tmp_path / "run" / "log.txt").read_text()
    assert not (tmp_path / "hacked").exists()


def test_a_question_that_the_output_lacks_counts_as_failed(msvd, tmp_path):
    folder = outputs(tmp_path, msvd, ["cat", None, "dog", None, "now"])
    found = import_outputs(folder, msvd, tmp_path / "run")
    (scores,) = found.scores.values()
    assert (scores["questions"], scores["answered"], scores["failed"]) == (5, 3, 2)
    assert scores["reasons"] == {NOT_THERE: 2}
    assert scores["rules"]["match-exact"] == {"accuracy": 3 / 5, "correct": 3, "unparsable": 0}
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["identity"]["benchmark"] == "msvd" and about["identity"]["imported"]["from"] == "published code"
    assert about["sessions"][0]["imported_files"] == [str(folder / "merge.jsonl")]
    before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    import_outputs(tmp_path / "artifacts", msvd, tmp_path / "run")  # the same, found from further up
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before
    outputs(tmp_path, msvd, ["cat", "home", "dog", None, "now"])
    with pytest.raises(RunError, match=r"this folder holds another run.*imported\.sha256"):
        import_outputs(folder, msvd, tmp_path / "run")


def test_choices_in_another_order_are_not_taken(tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question_id,question,answer,a0,a1\na,1,q,x,x,y\na,2,q,x,x,y\n")
    benchmark = load_benchmark("choice", tmp_path / "q.csv")
    rows = [theirs(question, "A") for question in benchmark.questions]
    write_outputs(tmp_path / "out", [rows[0], {**rows[1], "candidates": ["y", "x"]}])
    found = import_outputs(tmp_path / "out", benchmark, tmp_path / "run")
    assert "candidates: needed ['x', 'y'], got ['y', 'x']" in found.outputs.bad[0]
    assert [row["error"] for row in read_rows(tmp_path / "run")] == [None, NOT_THERE]
    (tmp_path / "temp").mkdir()
    with pytest.raises(OutputError, match="is multiple choice, and has no judge"):
        import_outputs(tmp_path / "out", benchmark, tmp_path / "run2", judged=tmp_path / "temp")


def test_judge_s_files_become_verdicts(msvd, tmp_path):
    preds = ["a cat", "at home", "dog", "woman", "now"]
    replies = [{"pred": "yes", "score": 5}, {"pred": "Yes", "score": 4.8}, {"pred": "no", "score": "0"}]
    replies += [{"pred": "unsure"}, {"pred": "yes", "score": 9}]
    folder = outputs(tmp_path, msvd, preds)
    judged = judge_files(tmp_path, replies, msvd, preds)
    (judged / "77.json").write_text("[1, 2]")
    (judged / "78.json").write_text("{")
    run = tmp_path / "run"
    out = sfllava(
        "import", folder, "--benchmark", "msvd", "--questions", "MSVD_QA.csv", "--out", run, "--judged", "temp",
        cwd=tmp_path,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert f"judge {JUDGE}: 2 verdicts, 3 questions without one, 2 files not usable" in out.stdout
    assert "77.json: needed a list of the judge's reply and the question" in out.stdout
    rows = {row["key"]: row for row in verdicts(run)}
    assert list(rows) == [question.key for question in msvd.questions]
    assert all(
        {"key", "setting", "rubric", "content", "judge", "reply", "imported"} <= row.keys() for row in rows.values()
    )
    # two questions share the id 1, so the published code has kept one verdict of the two
    assert (rows["msvd/0"]["correct"], rows["msvd/0"]["error"]) == (None, NOT_JUDGED)
    assert (rows["msvd/1"]["correct"], rows["msvd/1"]["score"]) == (True, 4.8)
    assert (rows["msvd/2"]["correct"], rows["msvd/2"]["score"], rows["msvd/2"]["error"]) == (False, 0.0, None)
    assert "neither yes nor no: 'unsure'" in rows["msvd/3"]["error"] and rows["msvd/3"]["correct"] is None
    assert "from 0 to 5, got 9.0" in rows["msvd/4"]["error"] and rows["msvd/4"]["score"] is None
    assert json.loads(rows["msvd/1"]["reply"]) == {"pred": "Yes", "score": 4.8}
    assert rows["msvd/1"]["imported"].endswith(f"{JUDGE}/1.json") and rows["msvd/1"]["setting"] == "cfg-50_frms"


@pytest.mark.parametrize(
    ("reply", "correct"),
    [("yes", True), ("Yes.", True), ("no", False), ("yes and no", True), ("unknown", False), ("", None), (True, None)],
)
def test_yes_and_no_by_the_published_rule(msvd, tmp_path, reply, correct):
    """It looks for `yes` anywhere, then for `no` anywhere, so that `unknown` is a no: kept, to compare."""
    folder = outputs(tmp_path, msvd, ["a cat"])
    judge_files(tmp_path, [{"pred": reply, "score": 3}], msvd, ["a cat"])
    import_outputs(folder, msvd, tmp_path / "run", judged=tmp_path / "temp")
    (row,) = verdicts(tmp_path / "run")
    assert row["correct"] is correct and (row["error"] is None) == (correct is not None)


def test_a_verdict_on_another_prediction_is_not_one_on_this(msvd, tmp_path):
    folder = outputs(tmp_path, msvd, ["a cat", None, "dog", None, None])
    reply = {"pred": "yes", "score": 5}
    judge_files(tmp_path, [None, None, reply, reply], msvd, ["", "", "an older reply", "man"])
    (found,) = import_outputs(folder, msvd, tmp_path / "run", judged=tmp_path / "temp").judged
    assert "msvd/2: judged another prediction than merge.jsonl has" in found.bad[0]
    assert "msvd/3: merge.jsonl has no prediction of it" in found.bad[1]
    assert [(row["key"], row["error"]) for row in verdicts(tmp_path / "run")] == [
        ("msvd/0", NOT_JUDGED),
        ("msvd/2", NOT_JUDGED),
    ]


def test_verdicts_of_another_origin_are_not_overwritten(msvd, tmp_path):
    preds = ["a cat", "home", "dog", "man", "now"]
    folder = outputs(tmp_path, msvd, preds)
    judge_files(tmp_path, [{"pred": "no", "score": 1}] * 5, msvd, preds)
    arguments = {"judged": tmp_path / "temp" / "MSVD_Zero_Shot_QA" / "cfg-50_frms" / JUDGE}
    run, name = tmp_path / "run", f"verdicts-{JUDGE}.jsonl"
    import_outputs(folder, msvd, run, **arguments)
    before = (run / name).read_bytes()
    import_outputs(folder, msvd, run, **arguments)
    assert sorted((run / name).read_bytes().splitlines()) == sorted(before.splitlines())
    import_outputs(folder, msvd, run, judge="older", **arguments)
    assert {row["judge"] for row in verdicts(run, "older")} == {"older"}
    judge(run, MatchJudge("match-exact"), progress=False)
    with pytest.raises(RunError, match="these verdicts are another judge's"):
        import_outputs(folder, msvd, run, judge="match-exact", **arguments)


def test_imported_verdicts_are_kept_next_to_those_of_other_judges(msvd, tmp_path):
    preds = ["a cat", "home", "dog", "man", "now"]
    folder = outputs(tmp_path, msvd, preds)
    judge_files(tmp_path, [{"pred": "no", "score": 1}] * 5, msvd, preds)
    import_outputs(folder, msvd, tmp_path / "run", judged=tmp_path / "temp")
    judge(tmp_path / "run", MatchJudge("match-contains"), progress=False)
    out = sfllava("verdicts", tmp_path / "run", cwd=tmp_path)
    assert out.returncode == 0 and f"columns {JUDGE}" in out.stdout and "kappa" in out.stdout
    words = load_results(tmp_path / "run", judge="match-contains")
    assert len(words) == 5 and words["correct"].any()
    # two questions share an id, so the published code has judged one of them only: that is no "no"
    with pytest.raises(RunError, match="1 predictions have no verdict yet, or a failed one"):
        load_results(tmp_path / "run", judge=JUDGE)


def test_vcgbench_with_its_pairs_and_rubrics(shared, tmp_path):
    write_playground(tmp_path, shared / "qa", [shared / "clips" / f"{CLIPS[0]}.mp4"], count=2)
    benchmark = load_benchmark("vcgbench", root=tmp_path / "playground")
    places = {"generic": "generic", "temporal": "temporal_understanding", "consistency": "consistency"}
    judged = {"generic": ("correctness", "detailed_orientation", "contextual")}
    for kind, place in places.items():
        asked = [q for q in benchmark.questions if q.type == kind]
        pairs = list(zip(asked[::2], asked[1::2])) if kind == "consistency" else [(q,) for q in asked]
        rows = []
        for pair in pairs:
            first = pair[0]
            about = {"id": first.id, "answer": first.answer}
            predictions = {f"pred{i}": f"{first.key} {i}" for i in (1, 2)} if len(pair) == 2 else {"pred": first.key}
            texts = [q.text for q in pair]
            rows.append({"question": texts if len(pair) == 2 else first.text, **about, **predictions})
            qa = {
                "a": first.answer,
                **predictions,
                **({"q1": texts[0], "q2": texts[1]} if len(pair) == 2 else {"q": first.text}),
            }
            for i, below in enumerate(judged.get(kind, ("",))):
                folder = tmp_path / "temp/Video_ChatGPT" / place / "cfg" / below / JUDGE
                folder.mkdir(parents=True, exist_ok=True)
                dump(folder / f"{first.id}.json", [{"score": i + 0.5}, qa])
        write_outputs(tmp_path / "artifacts/Video_ChatGPT" / place / "cfg", rows)
    found = import_outputs(tmp_path / "artifacts", benchmark, tmp_path / "run", judged=tmp_path / "temp")
    assert found.outputs.rows == 6 and not found.outputs.bad and not found.judged[0].bad
    rows = {row["key"]: row["prediction"] for row in read_rows(tmp_path / "run")}
    assert len(rows) == 8 and rows["vcgbench/consistency/1/2"] == "vcgbench/consistency/1/1 2"
    got = [(row["key"], row["rubric"], row["correct"], row["score"]) for row in verdicts(tmp_path / "run")]
    assert sorted(got) == sorted(
        [(f"vcgbench/generic/{i}", rubric, None, score) for i in (0, 1) for rubric, score in (("CI", 0.5), ("DO", 1.5), ("CU", 2.5))]
        + [(f"vcgbench/temporal/{i}", "TU", None, 0.5) for i in (0, 1)]
        + [(f"vcgbench/consistency/{i}", "CO", None, 0.5) for i in (0, 1)]
    )  # fmt: skip
    # one part alone: the questions of the others stay, as failed
    found = import_outputs(tmp_path / "artifacts/Video_ChatGPT/temporal_understanding/cfg", benchmark, tmp_path / "one")
    (scores,) = found.scores.values()
    assert (scores["answered"], scores["failed"]) == (2, 6)


def test_where_outputs_are_looked_for(msvd, tmp_path):
    outputs(tmp_path, msvd, ["cat"])
    write_outputs(tmp_path / "artifacts/MSVD_Zero_Shot_QA/other", [theirs(msvd.questions[0], "dog")])
    with pytest.raises(
        OutputError, match="outputs of several configs; name one with --config-name: cfg-50_frms, other"
    ):
        import_outputs(tmp_path / "artifacts", msvd, tmp_path / "run")
    import_outputs(tmp_path / "artifacts/MSVD_Zero_Shot_QA", msvd, tmp_path / "run", config_name="other")
    assert next(read_rows(tmp_path / "run"))["prediction"] == "dog"
    with pytest.raises(OutputError, match=r"gone: no merge\.jsonl there, nor in MSVD_Zero_Shot_QA/\* below it"):
        import_outputs(tmp_path / "gone", msvd, tmp_path / "run2")
    for judged, message in (
        ("gone", "no such folder of judge files"),
        ("artifacts", "no judge files below it; needed MSVD"),
    ):
        with pytest.raises(OutputError, match=message):
            import_outputs(
                tmp_path / "artifacts", msvd, tmp_path / "run2", config_name="other", judged=tmp_path / judged
            )
    assert not (tmp_path / "run2").exists()
    out = sfllava(
        "import", "x", "--benchmark", "msvd", "--questions", "MSVD_QA.csv", "--out", "r", "--frames", 4, cwd=tmp_path
    )
    assert out.returncode == 1 and out.stderr == "sfllava: --frames and --aggregation go together\n"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "{'a': __import__('os')}",
        "[x for x in (1,)]",
        "[" * 100_000,
        "{" * 50_000,
        "[" + "-" * 90_000 + "1]",
        "[" + "(" * 40_000,
        "[" + "1+" * 40_000 + "1]",
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        "{'a': 1, 'a': 2}",
        "{[]: 1}",
        "[" + "9" * 50_000,
        '["' + "x" * (1 << 20) + '"]',
        "{'a': '" + "x" * 100_000 + "'}",
        "",
        "yes",
    ],
    ids=lambda text: f"{text[:12]}-{len(text)}",
)
def test_text_that_is_no_value(text):
    with pytest.raises(ValueError, match=r"^(not readable as JSON|needed at most)"):
        parse_value(text)


def test_setting_names_are_checked(msvd, tmp_path):
    folder = outputs(tmp_path, msvd, ["cat"])
    found = import_outputs(folder, msvd, tmp_path / "run", setting=Setting(50))
    assert list(found.scores) == [Setting(50).name]
    judged = judge_files(tmp_path, [{"pred": "yes", "score": 1}], msvd, ["cat"])
    with pytest.raises(SfllavaError, match="cannot be the name of a judge's file"):
        import_outputs(folder, msvd, tmp_path / "run", setting=Setting(50), judged=judged, judge="../x")
