"""Import sample logs in the format of lmms-eval as run folders, and compare them."""

from __future__ import annotations

import json

import pytest
from shell import sfllava

from sfllava.analysis.compare import compare
from sfllava.analysis.differences import paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy
from sfllava.files import RunError
from sfllava.lmms_bridge.importing import import_log
from sfllava.lmms_bridge.samples import NOT_ANSWERED
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.settings import Setting

VIDEOMME = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\n{}\nA. Apples.\nB. Candles.\nC. Berries.\nD. None of them.\nThe best answer is:"
)


def sample(doc_id, answer, target="C", prompt=None, **more):
    """A line in the format of lmms-eval 0.7.3: without the document, with the output of the metrics."""
    row = {"doc_id": doc_id, "target": target, "filtered_resps": answer, "token_counts": [None], "doc_hash": "74234e"}
    return row | {"input": VIDEOMME.format(f"What is shown in part {doc_id}?") if prompt is None else prompt} | more


def videomme(doc_id, answer, target="C"):
    kind = ("Counting Problem", "OCR Problems")[doc_id % 2]
    about = {"question_id": f"00{doc_id // 3}-{doc_id % 3}", "duration": "short", "task_category": kind}
    score = {**about, "pred_answer": answer, "answer": target, "score": 1.0, "videoID": f"fFjv93ACG{doc_id // 3}"}
    return sample(doc_id, answer, target, videomme_perception_score=score)


def write(folder, rows, task="some_task", model="llava_onevision", name="lmms-lab/llava-ov-7b", **results):
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"20261129_094937_samples_{task}.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = {
        "results": {task: {"alias": task, "score,none": 50.0}},
        "config": {"model": model, "model_args": f"pretrained={name}", "offset": 0, "gen_kwargs": ""},
        "n-samples": {task: {"original": 900, "effective": len(rows)}},
        "lmms_eval_version": "main@0abcdef1", "model_name": name, "date": "20261129_094937",
    }  # fmt: skip
    (folder / "20261129_094937_results.json").write_text(json.dumps(about | results))
    return log


def test_two_models_of_lmms_eval_are_compared_with_clusters_by_video(tmp_path):
    letters = ["C", "C.", "(C) Berries.", "A", "The best answer is: C", "D"] * 4
    write(tmp_path / "one", [videomme(i, letter) for i, letter in enumerate(letters)], "videomme_")
    write(tmp_path / "two", [videomme(i, "A") for i in range(24)], "videomme_", name="other/other-7b")
    for name in ("one", "two"):
        out = sfllava("import", tmp_path / name, "--from", "lmms-eval", "--out", tmp_path / "runs" / name)
        assert out.returncode == 0, out.stderr
        assert "24 samples of task videomme_ about 8 videos" in out.stdout and "separate" not in out.stdout
    results = load_results([tmp_path / "runs" / "one", tmp_path / "runs" / "two"])
    table = accuracy(results).set_index("name")
    assert table.loc["llava-ov-7b", "accuracy"] == pytest.approx(100 * 4 / 6)
    assert table.loc["llava-ov-7b", "videos"] == 8 and table.loc["other-7b", "accuracy"] == 0
    (gap,) = paired_differences(results).to_dict("records")
    assert gap["points"] == pytest.approx(100 * 4 / 6) and (gap["questions"], gap["videos"]) == (24, 8)
    out = sfllava("compare", tmp_path / "runs" / "one", tmp_path / "runs" / "two")
    assert out.returncode == 0 and "llava-ov-7b" in out.stdout
    runs = (tmp_path / "runs" / "one", tmp_path / "runs" / "two")
    out = sfllava("figures", *runs, "--out", tmp_path / "figures", "--only", "types")
    assert out.returncode == 0 and list((tmp_path / "figures").glob("types.*")), out.stderr + out.stdout


def test_the_contents_of_a_run_folder(tmp_path):
    log = write(tmp_path, [videomme(i, "C") for i in range(3)])
    found = import_log(log, tmp_path / "run")
    identity = read_run(tmp_path / "run")["identity"]
    assert identity["benchmark"] == "choice" and identity["settings"][0]["name"] == "llava-ov-7b"
    imported = identity["imported"]
    assert (imported["source"], imported["version"], imported["task"]) == ("lmms-eval", "main@0abcdef1", "some_task")
    assert imported["model"] == "llava_onevision" and set(imported["sha256"]) == {"samples", "results"}
    session = read_run(tmp_path / "run")["sessions"][0]
    assert session["lmms_eval_results"]["score,none"] == 50.0 and session["imported_files"][0] == str(log)
    row = next(iter(read_rows(tmp_path / "run")))
    assert (row["key"], row["video"], row["type"]) == ("some_task/0", "fFjv93ACG0", "Counting Problem")
    assert row["answer"] == "Berries." and row["options"] == ["Apples.", "Candles.", "Berries.", "None of them."]
    assert row["question"].endswith("What is shown in part 0?") and row["imported"] == f"{log}, line 1"
    before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    assert import_log(tmp_path, tmp_path / "run").scores == found.scores
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before
    write(tmp_path, [videomme(i, "A") for i in range(3)])
    with pytest.raises(RunError, match="this folder holds another run"):
        import_log(log, tmp_path / "run")


OPTIONS = ("yes", "a dog", "2")
PARENTHESES = "Question:What?\nOption:\n(A) yes\n(B) a dog\n(C) 2\nOnly give the best option."


@pytest.mark.parametrize(
    ("targets", "prompt"),
    [
        (("A", "B", "C"), PARENTHESES),
        (("yes", "a dog", "2"), PARENTHESES),  # MVBench
        (("0", "1", "2"), "What?\nA. yes\nB. a dog\nC. 2\nAnswer."),  # NExT-QA, EgoSchema
        (("A. yes", "B. a dog", "C. 2"), "What?\nA. yes\nB. a dog\nC. 2\n"),  # TempCompass
        (("(A)", "(B)", "(C)"), "Example\nA. no\nB. other\nA.\n\nWhat?\nA) yes\n\nB) a dog\nC) 2"),  # with an example
    ],
)
def test_reference_answers_as_tasks_write_them(tmp_path, targets, prompt):
    rows = [sample(i, "ABC"[i], target, prompt) for i, target in enumerate(targets)]
    found = import_log(write(tmp_path, rows), tmp_path / "run")
    assert [row["answer"] for row in read_rows(tmp_path / "run")] == list(OPTIONS)
    assert {tuple(row["options"]) for row in read_rows(tmp_path / "run")} == {OPTIONS}
    assert found.scores["llava-ov-7b"]["rules"]["choice-strict"]["correct"] == 3
    # no field names the video
    assert found.videos == 3 and "3 of 3 samples do not name their video" in str(found)


def test_a_reference_answer_that_is_no_option_counts_as_wrong(tmp_path):
    rows = [sample(i, "A", "A" if i else "a cat", PARENTHESES) for i in range(20)]
    found = import_log(write(tmp_path, rows), tmp_path / "run")
    (scores,) = found.scores.values()
    assert scores["rules"]["choice-strict"]["accuracy"] == 19 / 20
    assert any("line 1: target 'a cat' is not among its options" in line for line in found.warnings)


def test_open_questions_and_missing_answers(tmp_path):
    own = {"output_tokens": 0, "visual_tokens": 9, "video": "/data/videos/b/2.mp4"}
    added = [
        {"token_counts": [{"output_tokens": 2, "visual_tokens": 9, "video": "/data/videos/a/1.mp4"}]},
        {"token_counts": [own | {"error": "b/2.mp4: truncated", "visual_tokens": None}]},
        {"token_counts": [own]},
        {},
        {},
    ]
    answers = ["A river.", "-", "-", "", []]
    rows = [sample(i, a, "river", "Where?", **more) for i, (a, more) in enumerate(zip(answers, added))]
    found = import_log(write(tmp_path, rows), tmp_path / "run")
    assert found.benchmark == "open" and found.answered == 2 and "2 of 5 samples do not name" in str(found)
    rows = list(read_rows(tmp_path / "run"))
    assert [row["error"] for row in rows] == [None, "b/2.mp4: truncated", None, NOT_ANSWERED, NOT_ANSWERED]
    assert [row["prediction"] for row in rows] == ["A river.", None, "-", None, None]
    assert [row["video"] for row in rows] == ["a/1.mp4", "b/2.mp4", "b/2.mp4", "some_task/3", "some_task/4"]
    (scores,) = found.scores.values()
    assert (scores["questions"], scores["failed"]) == (5, 3)
    assert scores["rules"]["match-exact"] == {"accuracy": 1 / 5, "correct": 1, "unparsable": 1}
    assert accuracy(load_results(tmp_path / "run"))["accuracy"].tolist() == [20.0]


def test_the_benchmark_is_chosen_by_the_name_of_the_task(tmp_path):
    rows = [sample(i, "A", "0", "What?\nA. x\nB. y") for i in range(3)]
    assert import_log(write(tmp_path, rows, "nextqa_mc_test"), tmp_path / "choice").benchmark == "nextqa"
    open_rows = [sample(i, "x", "x", "What?") for i in range(3)]
    assert import_log(write(tmp_path, open_rows, "nextqa_oe_test"), tmp_path / "open").benchmark == "open"
    log = write(tmp_path, open_rows, "activitynetqa")
    assert import_log(log, tmp_path / "named", benchmark="activitynet").benchmark == "activitynet"


def test_the_tasks_own_data_supply_the_videos(tmp_path):
    log = write(tmp_path / "log", [sample(i, "A", "A", f"Say: what {i}?\nA. x{i}\nB. y") for i in range(4)])
    csv = tmp_path / "data.csv"
    csv.write_text("video_name,question,task_type\n" + "".join(f"v{i // 2},what {i}?,t{i}\n" for i in range(4)))
    found = import_log(log, tmp_path / "run", questions=csv)
    rows = list(read_rows(tmp_path / "run"))
    assert found.videos == 2 and not found.warnings and [row["video"] for row in rows] == ["v0", "v0", "v1", "v1"]
    assert [row["question"] for row in rows][:1] == ["what 0?"] and rows[3]["type"] == "t3"
    csv.write_text("video_name,question\nv,what 1?\nv,what 0?\n")
    with pytest.raises(RunError, match=r"line 1: the prompt does not contain the question of row 1, 'what 1\?'"):
        import_log(log, tmp_path / "other", questions=csv)
    csv.write_text("video_name,question\nv,what 0?\n")
    with pytest.raises(RunError, match="line 2: doc_id 1 is not among the 1 rows"):
        import_log(log, tmp_path / "other", questions=csv)


def test_a_log_of_our_own_model_has_its_setting(tmp_path):
    name = "slowfast-slow_2frms_spatial_1d_max_pool-fast_4x4"
    arguments = f"pretrained=tiny,frames=8,aggregation={name}"
    log = write(tmp_path, [videomme(0, "C")], config={"model": "sfllava", "model_args": arguments})
    import_log(log, tmp_path / "run")
    described = {"name": f"8frms-{name}", "frames": 8, "aggregation": name}
    assert read_run(tmp_path / "run")["identity"]["settings"] == [described]
    import_log(log, tmp_path / "given", setting=Setting(5, "slowfast-slow_1frms_concat-fast_2x2"))
    assert read_run(tmp_path / "given")["identity"]["settings"][0]["frames"] == 5


def test_a_log_without_its_results_and_one_with_lost_lines(tmp_path):
    log = write(tmp_path / "lost", [videomme(0, "C")], **{"n-samples": {"some_task": {"effective": 4}}})
    assert "reports 4 samples, but 1 are in the log" in str(import_log(log, tmp_path / "lost-run"))
    bare = tmp_path / "their-model" / "samples.jsonl"
    bare.parent.mkdir()
    bare.write_bytes(log.read_bytes().rstrip(b"\n"))
    import_log(bare, tmp_path / "bare-run")
    identity = read_run(tmp_path / "bare-run")["identity"]
    assert identity["settings"][0]["name"] == "their-model" and identity["imported"]["version"] == "unknown"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"doc_id": 0', ""], "line 1: not readable as JSON"),
        ([b"\xff{}"], "line 1: not readable as JSON"),
        (["[1]"], "line 1: needed an object, got list"),
        ([{"doc_id": 0, "target": "A"}], "line 1: no filtered_resps; there are doc_id, target"),
        ([sample(0, "A"), sample("0", "B")], "line 2: doc_id 0 is on line 1 too"),
        ([sample(True, "A")], "line 1: doc_id must be text or a number, got true"),
        ([sample(0, "A", [1])], "line 1: target must be text or a number, got [1]"),
        ([sample(0, ["A", "B"])], "line 1: filtered_resps must be one answer, got several"),
        ([sample(0, [["-1.2", "False"], ["-3.0", "True"]])], "line 1: filtered_resps must be one answer, got likelih"),
        ([sample(0, 3)], "line 1: filtered_resps must be one answer, got 3"),
        ([sample(0, "A"), sample(1, "x", "x", "What?")], "line 2: no options in the prompt, unlike "),
        ([sample(0, "A", "None")], "line 1: target 'None' is not among its options"),
        ([sample(0, "A", "1", "How many?\nA. 1\nB. 2")], "line 1: target '1' may be the text or the number of an opt"),
        ([], "no samples in it"),
    ],
)  # fmt: skip
def test_bad_lines_are_named(tmp_path, lines, message):
    log = tmp_path / "20261129_094937_samples_t.jsonl"
    data = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    log.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in data))
    out = sfllava("import", log, "--from", "lmms-eval", "--out", tmp_path / "run")
    assert out.returncode == 1 and message in out.stderr and out.stderr.startswith(f"sfllava: {log}"), out.stderr
    assert out.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_bad_commands(tmp_path):
    for arguments, message in (
        (["--judge", "j"], "--judge: only for outputs of the published code, not --from lmms-eval"),
        ([], "needed one *_samples_*.jsonl, got a folder with 0"),
    ):
        out = sfllava("import", tmp_path, "--from", "lmms-eval", "--out", tmp_path / "run", *arguments)
        assert out.returncode == 1 and message in out.stderr and out.stderr.count("\n") == 1
    out = sfllava("import", tmp_path, "--out", tmp_path / "run")
    assert out.returncode == 1 and "needed --benchmark NAME" in out.stderr
    for task in ("a", "b"):
        write(tmp_path, [videomme(0, "C")], task)
    with pytest.raises(RunError, match=r"got a folder with 2: 20261129_094937_samples_a\.jsonl, "):
        import_log(tmp_path, tmp_path / "run")
    with pytest.raises(RunError, match="cannot read the sample log: No such file"):
        import_log(tmp_path / "no.jsonl", tmp_path / "run")


def test_runs_of_other_questions_are_not_compared(tmp_path):
    import_log(write(tmp_path / "a", [videomme(i, "C") for i in range(3)]), tmp_path / "runs" / "a")
    import_log(write(tmp_path / "b", [videomme(i, "C", "B") for i in range(3)]), tmp_path / "runs" / "b")
    with pytest.raises(RunError, match="were not asked the same questions"):
        compare([tmp_path / "runs" / "a", tmp_path / "runs" / "b"])


def test_yes_or_no_is_read_by_the_first_word(tmp_path):
    rows = [
        {"doc_id": i, "target": target, "input": f"Does it {i}?", "filtered_resps": [reply], "resps": [[reply]]}
        for i, (target, reply) in enumerate(
            [("yes", "Yes, it is."), ("no", "No."), ("no", "It is not."), ("yes", "no")]
        )
    ]
    log = tmp_path / "20261129_samples_tempcompass_yes_no.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = import_log(log, tmp_path / "run")
    (scores,) = found.scores.values()
    assert scores["rules"]["yes-no"] | {"correct": 2, "unparsable": 1} == scores["rules"]["yes-no"]
