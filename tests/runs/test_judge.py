from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from judged_runs import HOSTILE, go, open_rows, quick, vcgbench_rows, verdicts, write_rows, write_run

from sfllava.analysis.loading import load_results
from sfllava.evaluators.judges.base import JudgeError
from sfllava.evaluators.judges.match import MatchJudge
from sfllava.evaluators.judges.openai_batch import BatchClient
from sfllava.runs.judge import plan_judging
from sfllava.runs.judge_items import read_items
from sfllava.runs.run_folder import RunError

pytestmark = pytest.mark.slow

FAULTS = ["rate_limit", "server_error", "cut", "reset", "wrong_json", "refusal", "duplicate"]


def test_every_prediction_gets_one_verdict(server, tmp_path):
    server()
    run = write_run(tmp_path / "run", open_rows(40))
    done = go(run)
    rows = verdicts(run)
    assert done.complete and (done.judged, done.requests) == (40, 40) and done.response_models == ("judge-served-2026",)
    assert len({(r["key"], r["setting"], r["rubric"]) for r in rows}) == 40
    assert [r["correct"] for r in sorted(rows, key=lambda r: int(r["key"].split("/")[1]))] == [
        i % 10 < 6 for i in range(40)
    ]
    for row in rows:
        assert row["model"] == "judge-2026-01-01" and row["served"] == "judge-served-2026" and row["reply"]
    assert go(run).requests == 0 and len(verdicts(run)) == 40


def test_no_more_requests_at_a_time_than_told(server, tmp_path):
    one = server(delay=0.05)
    assert go(write_run(tmp_path / "run", open_rows(40)), quick(concurrency=5)).complete
    assert one.counts()["most"] == 5


def test_equal_texts_are_paid_for_once(server, tmp_path):
    """Two settings that said the same, and a question that stands twice in its file."""
    one = server()
    rows = [*open_rows(30), *open_rows(30, "t", right=0.3)]
    run = write_run(tmp_path / "run", [*rows, {**rows[0], "key": "open/again"}])
    assert plan_judging(run, quick()).requests == 30 + 9  # of every ten three are wrong in one and right in the other
    assert go(run).requests == 39 and sum(one.counts()["completed"].values()) == 39
    rows = verdicts(run)
    assert len(rows) == 61 and sum(row["paid"] for row in rows) == 39
    assert all(row["tokens"] == [0, 0] for row in rows if not row["paid"])


def test_other_runs_verdicts_can_be_taken_over(server, tmp_path):
    one = server()
    first = write_run(tmp_path / "one", open_rows(20))
    go(first)
    second = write_run(tmp_path / "two", open_rows(30))
    assert plan_judging(second, quick(), reuse=[first]).requests == 10
    done = go(second, reuse=[first])
    assert done.requests == 10 and done.complete and set(one.counts()["completed"].values()) == {1}
    third = write_run(tmp_path / "three", open_rows(30))
    with pytest.raises(RunError, match=r"verdicts-openai-another.json: not the record of a judge"):
        go(third, quick("another"), reuse=[first])


def test_what_inference_failed_on_is_not_sent(server, tmp_path):
    one = server()
    rows = open_rows(10)
    rows[3] |= {"prediction": None, "error": "v0: no such video"}
    rows[4] |= {"prediction": None}
    done = go(write_run(tmp_path / "run", rows))
    assert (done.judged, done.no_prediction, done.complete) == (8, 2, True)
    assert one.counts()["requests"] == 8 and "2 without a prediction" in str(done)


def test_a_failure_is_a_row_with_its_reason_and_is_retried(server, tmp_path):
    one = server(faults={"refusal": 0.5})
    run = write_run(tmp_path / "run", open_rows(40))
    done = go(run)
    failed = [row for row in verdicts(run) if row["error"]]
    assert 10 < done.failed < 30 and len(failed) == done.failed and not done.complete
    assert {row["error"] for row in failed} == {"refused: I cannot grade this."}
    assert all(row["correct"] is None and row["score"] is None for row in failed)
    assert f"failed {done.failed} x: refused" in str(done)
    one.behave(faults={})
    again = go(run)
    assert again.complete and again.requests == done.failed and len(verdicts(run)) == 40
    assert not any(row["error"] for row in verdicts(run)) and set(one.counts()["completed"].values()) == {1}


def test_it_stops_when_every_request_fails(server, tmp_path):
    one = server(faults={"server_error": 1})
    run = write_run(tmp_path / "run", open_rows(200))
    with pytest.raises(JudgeError, match=r"\d+ verdicts failed in a row, the last: HTTP 500: it broke"):
        go(run, quick(tries=1, concurrency=4))
    assert 20 <= one.counts()["requests"] < 40
    one.behave(faults={})
    assert go(run).complete


def test_a_refused_account_stops_it_and_keeps_what_there_is(server, tmp_path):
    one = server()
    run = write_run(tmp_path / "run", open_rows(20))
    go(write_run(tmp_path / "other", open_rows(5)))
    one.behave(status=401)
    with pytest.raises(JudgeError, match="HTTP 401"):
        go(run)
    assert verdicts(run) == []
    one.behave(status=0)
    assert go(run).complete


def test_a_limit_on_the_cost(server, tmp_path):
    one = server()
    run = write_run(tmp_path / "run", open_rows(50))
    with pytest.raises(RunError, match="a limit on the cost needs the prices"):
        go(run, limit_cost=1.0)
    dear = {"price": (1000.0, 1000.0), "concurrency": 4}
    estimate = plan_judging(run, quick(**dear)).cost
    assert estimate is not None
    with pytest.raises(RunError, match=r"50 requests would cost about \$\d+\.\d\d, more than the limit \$5\.00"):
        go(run, quick(**dear), limit_cost=5.0)
    assert one.counts()["requests"] == 0
    done = go(run, quick(**dear), limit_cost=estimate)
    assert done.complete and done.cost is not None and 0 < done.cost < estimate
    assert done.cost == pytest.approx(sum(row["cost"] for row in verdicts(run)))


def test_a_limit_is_kept_where_requests_cost_more_than_thought(server, tmp_path):
    """Each verdict takes several paid replies here: it stops before the limit instead of behind it."""
    server(faults={"wrong_json": 0.9})
    run = write_run(tmp_path / "run", open_rows(60))
    judging = quick(price=(1000.0, 1000.0), concurrency=2, max_reply_tokens=12)
    limit = plan_judging(run, judging).cost
    assert limit is not None
    done = go(run, judging, limit_cost=limit)
    assert done.cost is not None and done.cost <= limit * 1.05 and "limit" in done.stopped and not done.complete
    assert "stopped: the next request could exceed the limit of $" in str(done)


def test_verdicts_belong_to_one_judge(server, tmp_path):
    server()
    run = write_run(tmp_path / "run", open_rows(4))
    go(run, quick("one", name="mine"))
    with pytest.raises(RunError, match=r'these verdicts are another judge\'s.*model was "one", is "two"'):
        go(run, quick("two", name="mine"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "open.txt").write_text("Be kind.\n--- user ---\n{question} {answer} {prediction}")
    with pytest.raises(RunError, match=r"rubrics_sha256\.open was"):
        go(run, quick("one", name="mine"), rubrics=tmp_path / "own")
    with pytest.raises(RunError, match="a judge's name may have only letters"):
        go(run, quick("one", name="../x"))
    go(run, quick("two", name="theirs"))
    assert len(verdicts(run, "mine")) == len(verdicts(run, "theirs")) == 4


def test_a_spoilt_file_is_an_error_and_a_half_line_is_cut_off(server, tmp_path):
    server()
    run = write_run(tmp_path / "run", open_rows(6))
    go(run)
    file = run / "verdicts-openai-judge-2026-01-01.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert go(run).requests == 1 and len(verdicts(run)) == 6
    assert "cut off a half-written last line" in (run / "log.txt").read_text()
    file.write_bytes(whole + whole.splitlines(keepends=True)[0])
    with pytest.raises(RunError, match="line 7: a second verdict on open/"):
        go(run)
    file.write_bytes(b"{}\n" + whole)
    with pytest.raises(RunError, match="line 1: not a row of verdicts: no content"):
        go(run)
    (run / "verdicts-openai-judge-2026-01-01.json").unlink()
    with pytest.raises(RunError, match="it is unknown which judge gave them"):
        go(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": None}, "options is null"),
        ({"options": ["a", 1]}, r"options\[1\] is 1"),
        ({"question": ...}, "no question"),
        ({"answer": ..., "type": ...}, "no answer, type"),
        ({"visual_tokens": float("nan")}, "visual_tokens is NaN"),
        ({"visual_tokens": True}, "visual_tokens is true"),
        ({"seconds": {"answer": float("inf")}}, r"seconds\.answer is Infinity"),
        ({"seconds": {"answer": "1 s"}}, r'seconds\.answer is "1 s"'),
    ],
)
def test_a_row_of_odd_content_is_named_by_its_line(tmp_path, change, message):
    rows = open_rows(3)
    rows[1] |= change
    run = write_run(tmp_path / "run", rows)
    for read in (load_results, read_items):
        with pytest.raises(RunError, match=rf"run/predictions\.jsonl, line 2: not a row of predictions: {message}$"):
            read(run)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"identity": {}}, "no sessions"),
        ({"identity": {"settings": []}, "sessions": []}, "no identity.benchmark, identity.questions"),
        (
            {"identity": {"benchmark": "open", "questions": "5", "settings": []}, "sessions": []},
            'identity.questions is "5"',
        ),
        (
            {"identity": {"benchmark": "open", "questions": 5, "settings": [{}]}, "sessions": []},
            r"no identity.settings\[0\].name",
        ),
    ],
)
def test_a_run_json_that_lacks_a_field(tmp_path, run, message):
    folder = write_run(tmp_path / "run", open_rows(3))
    (folder / "run.json").write_text(json.dumps(run))
    for read in (load_results, read_items):
        with pytest.raises(RunError, match=rf"run\.json: not the run\.json of a run: {message}$"):
            read(folder)


def test_verdicts_on_other_predictions_do_not_count(server, tmp_path):
    one = server()
    run = write_run(tmp_path / "run", open_rows(6))
    go(run)
    text = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(text.replace("it is thing 1", "no idea at all"))
    assert plan_judging(run, quick()).requests == 1
    go(run)
    assert not next(row for row in verdicts(run) if row["key"] == "open/1")["correct"]
    (run / "predictions.jsonl").write_text(text)  # and back: paid for before
    assert go(run).requests == 0 and next(row for row in verdicts(run) if row["key"] == "open/1")["correct"]
    assert set(one.counts()["completed"].values()) == {1}


def command(run, *more, judging="openai"):
    model = ["--model", "judge-2026-01-01"] if judging == "openai" else []
    return [sys.executable, "-m", "sfllava.cli", "judge", str(run), "--judge", judging, *model, *map(str, more)]


def test_an_interrupt_stops_it_with_a_word(server, tmp_path):
    one = server(delay=0.1)
    run = write_run(tmp_path / "run", open_rows(3000))  # 19 s at the least, so that there is a middle to stop in
    process = subprocess.Popen(
        command(run, "--yes"), env=one.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    file = run / "verdicts-openai-judge-2026-01-01.jsonl"
    while process.poll() is None and not (file.exists() and file.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; run the same command again to continue" in err, err
    assert 0 < len(verdicts(run)) < 3000 and "Traceback" not in err, err


def test_no_secret_is_written_or_shown(server, tmp_path):
    one = server(faults={"server_error": 0.2, "refusal": 0.2, "cut": 0.2}, echo=True)
    run = write_run(tmp_path / "run", [*open_rows(20), {**open_rows(1)[0], "key": "open/x", "prediction": "Bearer"}])
    environment = one.environment("sk-none-of-your-business-0123456789")
    shown = ""
    for more in ((), ("-v",), ("--batch",), ("--batch", "--plain", "-v")):
        out = subprocess.run(command(run, "--yes", *more), env=environment, capture_output=True, text=True)
        shown += out.stdout + out.stderr
    one.behave(key="sk-a-new-one-that-we-do-not-have")  # the server's error repeats all headers
    (run / "verdicts-openai-judge-2026-01-01.jsonl").write_text("")
    out = subprocess.run(command(run, "--yes"), env=environment, capture_output=True, text=True)
    assert out.returncode == 1 and "HTTP 401: Incorrect API key provided: Bearer [hidden]" in out.stderr
    shown += out.stdout + out.stderr
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) >= 6
    text = shown + "".join(path.read_bytes().decode("utf-8", "replace") for path in files)
    for secret in ("none-of-your-business", "org-ours", one.url, one.url.split("/")[2], "127.0.0.1"):
        assert secret not in text


def test_hostile_predictions_through_the_whole_way(server, tmp_path):
    server()
    rows = [{**row, "prediction": text} for row, text in zip(open_rows(len(HOSTILE)), HOSTILE)]
    run = write_run(tmp_path / "run", rows)
    done = go(run)
    assert done.complete and not any(row["correct"] for row in verdicts(run))
    assert [row["cut"] for row in sorted(verdicts(run), key=lambda r: int(r["key"].split("/")[1]))] == [False] * 9 + [
        True
    ]


def test_the_estimate_comes_first(server, tmp_path):
    one = server()
    run = write_run(tmp_path / "run", open_rows(12))
    out = subprocess.run(command(run), env=one.environment(), capture_output=True, text=True)
    assert out.returncode == 1 and "nothing sent: pass --yes, or --limit-cost DOLLARS" in out.stderr
    assert "12 to judge, 0 done before, 0 without a prediction; 12 requests of about" in out.stderr
    assert one.counts()["requests"] == 0 and sorted(p.name for p in run.iterdir()) == ["predictions.jsonl", "run.json"]
    more = ("--price", 0.15, 0.6, "--limit-cost", 0.01)
    out = subprocess.run(command(run, *more), env=one.environment(), capture_output=True, text=True)
    assert out.returncode == 0 and "about $0.00" in out.stderr and "12 to judge: 12 judged" in out.stdout
    assert "open      66.7 % [" in out.stdout and "score 3.30 [" in out.stdout


def test_the_command_line_says_what_it_needs(tmp_path):
    run = write_run(tmp_path / "run", open_rows(2))
    plain = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    for arguments, message in (
        (["--judge", "openai"], "the openai judge needs --model, the exact name"),
        (["--judge", "openai", "--model", "m", "--yes"], "needs OPENAI_API_KEY"),
        (["--judge", "local", "--model", str(tmp_path / "no")], "no such checkpoint folder of a language model"),
        (["--judge", "match-exact", "--batch"], "--batch is for the openai judge"),
    ):
        line = [sys.executable, "-m", "sfllava.cli", "judge", str(run), *arguments]
        out = subprocess.run(line, env=plain, capture_output=True, text=True)
        assert out.returncode == 1 and message in out.stderr and "Traceback" not in out.stderr
    out = subprocess.run(command(tmp_path, judging="match-exact"), capture_output=True, text=True)
    assert out.returncode == 1 and "run.json: not the run.json of a run" in out.stderr


def test_the_matcher_judges_without_a_server(tmp_path):
    run = write_run(tmp_path / "run", [*open_rows(2000), *open_rows(2000, "t")])
    out = subprocess.run(command(run, judging="match-contains"), capture_output=True, text=True)
    assert out.returncode == 0 and "4000 judged" in out.stdout
    # nothing is sent anywhere
    assert out.stderr.startswith("4000 to judge, 0 done before, 0 without a prediction\n")
    assert not any(word in out.stdout + out.stderr for word in ("request", "token", "server"))
    assert sum(row["correct"] for row in verdicts(run, "match-contains")) == 2400
    with pytest.raises(JudgeError, match="needs a model"):
        go(write_run(tmp_path / "vcg", vcgbench_rows(), "vcgbench"), MatchJudge())
    with pytest.raises(RunError, match="multiple choice is scored by its letters"):
        go(write_run(tmp_path / "choice", [], "choice"), MatchJudge())


def test_vcgbench_is_judged_under_five_rubrics(server, tmp_path):
    one = server()
    failed = {"vcgbench/generic/1", "vcgbench/consistency/2/1"}
    run = write_run(tmp_path / "run", vcgbench_rows(3, failed), "vcgbench")
    units = read_items(run)
    assert Counter(unit.rubric for unit in units) == {"CI": 3, "DO": 3, "CU": 3, "TU": 3, "CO": 3}
    done = go(run)
    assert (done.items, done.no_prediction, done.judged, done.complete) == (15, 4, 11, True)
    scores = {(row["key"], row["rubric"]): row["score"] for row in verdicts(run)}
    assert scores["vcgbench/generic/0", "DO"] == 4.8 and scores["vcgbench/temporal/1", "TU"] == 0.3
    assert scores["vcgbench/consistency/0", "CO"] == 2.55  # one of the two predictions is right
    assert all(row["correct"] is None for row in verdicts(run))
    assert one.counts()["requests"] == 11


def test_half_a_pair_waits_for_the_other(server, tmp_path):
    server()
    rows = vcgbench_rows(1)
    run = write_run(tmp_path / "run", rows[:-1], "vcgbench")
    assert go(run).items == 4
    shutil.copytree(run, tmp_path / "more")
    write_rows(tmp_path / "more", rows)
    done = go(tmp_path / "more")
    assert (done.items, done.requests) == (5, 1)


def test_a_batch_is_submitted_and_collected_on_later_calls(server, tmp_path):
    one = server(batch_polls=1)
    run = write_run(tmp_path / "run", open_rows(30))
    more = {"batch": BatchClient(most_requests=20)}
    first = go(run, **more)
    assert (first.waiting, first.judged) == (30, 0) and "30 waiting for a batch" in str(first)
    planned = plan_judging(run, quick())
    assert (planned.requests, planned.waiting) == (0, 30) and "30 texts wait for a batch" in str(planned)
    assert go(run).requests == 0  # without --batch what waits is not paid for again
    second = go(run, **more)
    assert second.waiting == 30  # still under way
    third = go(run, **more)
    assert third.complete and len(verdicts(run)) == 30 and len(one.counts()["batches"]) == 2
    assert set(one.counts()["completed"].values()) == {1} and len(one.counts()["completed"]) == 30
    assert sum(row["correct"] for row in verdicts(run)) == 18


def test_a_batch_with_failing_lines_is_completed_by_the_next(server, tmp_path):
    one = server(batch_polls=0, faults=dict.fromkeys(FAULTS, 0.06), seed=2)
    run = write_run(tmp_path / "run", open_rows(80))
    done = go(run, batch=BatchClient(wait=True, poll_seconds=0.05))
    failed = [row["error"] for row in verdicts(run) if row["error"]]
    assert done.failed == len(failed) > 5 and len(verdicts(run)) == 80
    kinds = {error.split(":")[0] for error in failed}
    assert kinds == {"batch line, HTTP 500", "refused", "unreadable reply"}
    one.behave(faults={})
    assert go(run, batch=BatchClient(wait=True, poll_seconds=0.05)).complete
    assert set(one.counts()["completed"].values()) == {1} and len(verdicts(run)) == 80


def test_an_expired_batch_leaves_failures_and_keeps_what_came(server, tmp_path):
    one = server(batch_polls=0, batch_expires=True)
    run = write_run(tmp_path / "run", open_rows(20))
    done = go(run, batch=BatchClient(wait=True, poll_seconds=0.05))
    assert (done.judged, done.failed) == (10, 10)
    assert done.reasons == {"batch expired: no reply to this request": 10}
    one.behave(batch_expires=False)
    assert go(run).complete and set(one.counts()["completed"].values()) == {1}  # the rest without a batch


@pytest.mark.parametrize("arrived", [True, False], ids=["made", "not made"])
def test_a_batch_whose_id_was_lost_is_found_again(server, tmp_path, monkeypatch, arrived):
    """The process ends between asking for a batch and writing its id down."""
    from openai.resources.batches import AsyncBatches

    one = server(batch_polls=0)
    run = write_run(tmp_path / "run", open_rows(10))
    create = AsyncBatches.create

    async def killed(self, **options):
        if arrived:
            await create(self, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(AsyncBatches, "create", killed)
    with pytest.raises(KeyboardInterrupt):
        go(run, batch=BatchClient())
    monkeypatch.undo()
    for name, value in one.environment().items():
        if name.startswith("OPENAI_"):
            monkeypatch.setenv(name, value)
    assert go(run, batch=BatchClient(wait=True, poll_seconds=0.05)).complete
    assert len(one.counts()["batches"]) == 1 and set(one.counts()["completed"].values()) == {1}


def test_a_notebook_s_running_loop_is_no_hindrance(server, tmp_path):
    import asyncio

    server()
    run = write_run(tmp_path / "run", open_rows(5))

    async def cell():
        return go(run)

    assert asyncio.run(cell()).complete
