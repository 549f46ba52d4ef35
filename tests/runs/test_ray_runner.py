"""Runs on Ray: real clusters of real processes on this machine, killed in earnest."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

# before ray is imported: all on the loopback, a token of our own, nothing sent anywhere
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())

import ray
from fault_table import record
from ray.cluster_utils import Cluster
from small_runs import SETTINGS, SMALL, log_of, plain, questions_csv, run

from sfllava import cli
from sfllava.ablation import ablate
from sfllava.benchmarks import load_benchmark
from sfllava.runs.failures import Outcome
from sfllava.runs.jobs import GenerationOptions, Job
from sfllava.runs.ray_actor import WorkerResult
from sfllava.runs.ray_cluster import plan_workers
from sfllava.runs.ray_runner import RayRunner
from sfllava.runs.ray_worker import RayWorker
from sfllava.runs.run_folder import read_rows
from sfllava.settings import Setting
from sfllava.types import SfllavaError

NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 2**27}

# a killed node refuses connections and is known to be dead after 3 seconds, not 13; a slow one is given its time
HEAD = {**NODE, "num_cpus": 2, "include_dashboard": False}
HEAD["_system_config"] = {
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 20_000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(initialize_head=True, head_node_args=HEAD)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def workers(cluster, checkpoints):
    """Two that fill the head node; a second node, with room for one more, is left to those who want it."""
    with RayRunner(checkpoints(), 2, cluster.address) as workers:
        until(lambda: len(workers._idle()) == 2, workers)
        cluster.add_node(num_cpus=1, **NODE)
        yield workers


def until(true, workers: RayRunner):
    while not true():
        list(workers._collect(0.1))
        time.sleep(0.1)


@pytest.fixture
def benchmark(videos, tmp_path):
    return load_benchmark("open", questions_csv(tmp_path / "q.csv"), videos)


@pytest.fixture
def twelve(videos, tmp_path):
    """Twelve videos with two questions each."""
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [f"{name}{i}" for i in range(4) for name in "abc"]
    for name in names:
        os.link(videos / f"{name[0]}.mp4", folder / f"{name}.mp4")
    return load_benchmark("open", questions_csv(tmp_path / "q.csv", names, each=2), folder)


class Own:
    """An aggregation of a user's own that does something to the process that it is in."""

    def __init__(self, does, *arguments):
        self.does, self.arguments = does, arguments

    def __call__(self, grid):
        self.does(grid, *self.arguments)
        return grid[:, ::12, ::12].reshape(-1, grid.shape[-1])

    def __repr__(self):
        return f"own {self.does.__name__}"


def kill_once(grid, flag: str):
    if len(grid) == 21 and not Path(flag).exists():  # b.mp4
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def kill_always(grid, tries: str):
    if len(grid) == 21:
        with Path(tries).open("a") as file:
            file.write("x\n")
        os.kill(os.getpid(), signal.SIGKILL)


def fail_in(grid, process: int):
    """Fail in one process from its second video on, as a GPU after an assertion on the device."""
    if os.getpid() != process:
        time.sleep(0.5)  # so that the others leave it some to fail at
        return
    fail_in.calls = getattr(fail_in, "calls", 0) + 1
    if fail_in.calls > 1:
        raise RuntimeError(f"CUDA error: device-side assert triggered at {hex(id(grid))}")


def fail_in_all(grid):
    if grid.shape[-1] > 1:
        raise RuntimeError("CUDA error: device-side assert triggered")


def take_time(grid):
    time.sleep(0.7)


def rows_of(path):
    return plain(read_rows(path))


def test_rows_are_those_of_one_process(workers, models, benchmark, tmp_path):
    ours = run(workers, benchmark, tmp_path / "ours", SETTINGS)
    theirs = run(models(), benchmark, tmp_path / "theirs", SETTINGS)
    assert rows_of(ours.path) == rows_of(theirs.path) and len(rows_of(ours.path)) == 36
    assert ours.scores == theirs.scores
    one, other = (json.loads((p.path / "run.json").read_text())["identity"] for p in (ours, theirs))
    assert one == other


def test_a_run_is_resumed_with_workers_and_without(workers, models, twelve, tmp_path):
    whole = rows_of(run(models(), twelve, tmp_path / "whole", SETTINGS).path)
    lines = (tmp_path / "whole" / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    for name, first, then in (("there", models(), workers), ("back", workers, models())):
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        file = tmp_path / name / "predictions.jsonl"
        file.write_bytes(b"".join(lines[:11]))
        retried = run(first, twelve, tmp_path / name, SETTINGS)
        assert rows_of(retried.path) == whole  # a row twice is an error of the next start
        lines_now = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines_now[:40]) + lines_now[40][:30])
        assert rows_of(run(then, twelve, tmp_path / name, SETTINGS).path) == whole
        assert file.read_bytes().startswith(b"".join(lines_now[:40]))


def test_what_fails_in_a_worker_is_what_fails_in_one_process(workers, models, videos, tmp_path):
    folder = shutil.copytree(videos, tmp_path / "videos")
    (folder / "b.mp4").write_bytes((folder / "b.mp4").read_bytes()[:200])
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", ["a", "b", "gone"], 2), folder)
    ours = run(workers, benchmark, tmp_path / "ours")
    assert ours.scores[SMALL.name]["failed"] == 4
    assert rows_of(ours.path) == rows_of(run(models(), benchmark, tmp_path / "theirs").path)
    assert "b: attempt 1 failed" in log_of(ours.path)  # said in the worker, and kept


def test_a_killed_worker_is_replaced_and_its_video_done_again(workers, models, benchmark, tmp_path, capsys):
    settings = [SMALL, Setting(30, Own(kill_once, str(tmp_path / "killed")))]
    ours = run(workers, benchmark, tmp_path / "ours", settings)
    assert (tmp_path / "killed").exists()
    theirs = run(models(), benchmark, tmp_path / "theirs", settings)
    assert rows_of(ours.path) == rows_of(theirs.path) and len(rows_of(ours.path)) == 24
    assert all(not row["error"] for row in rows_of(ours.path))
    assert "raylet" not in capsys.readouterr().out and "Ray: " in log_of(ours.path)
    record("Ray: a worker killed", 1, 1, 0, "its video processed again; rows as from one process")


def test_a_video_that_kills_three_times_is_set_aside(workers, benchmark, tmp_path):
    settings = [SMALL, Setting(30, Own(kill_always, str(tmp_path / "tries")))]
    ours = run(workers, benchmark, tmp_path / "ours", settings)
    assert (tmp_path / "tries").read_text() == "x\n" * 3
    rows = rows_of(ours.path)
    assert len(rows) == 24 and {row["video"] for row in rows if row["error"]} == {"b"}
    reasons = {row["error"] for row in rows if row["video"] == "b"}
    assert len(reasons) == 1 and re.match(r"killed its worker 3 times: .*process \d+ on .*127\.0\.0\.1", reasons.pop())
    assert "b: set aside: killed its worker 3 times" in log_of(ours.path)
    record(
        "Ray: a video that kills three workers",
        3,
        3,
        0,
        "its questions failed with the reason; the others were answered",
    )


def test_a_worker_whose_device_is_broken_is_set_aside(workers, models, twelve, tmp_path):
    process = ray.get(workers._workers[0].actor.call.remote(workers.info.fingerprint, process_of, ()))
    setting = Setting(6, Own(fail_in, process), "own")
    theirs, ours = run(models(), twelve, tmp_path / "theirs", setting), run(workers, twelve, tmp_path / "ours", setting)
    assert rows_of(ours.path) == rows_of(theirs.path) and ours.scores["own"]["failed"] == 0
    assert "gets no more work, its videos go to others: RuntimeError: CUDA error" in log_of(ours.path)
    with pytest.raises(SfllavaError, match=r"on one worker, and no other is left.*RuntimeError: CUDA error"):
        run(workers, twelve, tmp_path / "none", Setting(6, Own(fail_in_all), "own"))
    assert rows_of(tmp_path / "none") == []
    record(
        "Ray: a worker whose device is broken", 1, 1, 0, "its videos processed by the others; rows as from one process"
    )


def process_of(model):
    return os.getpid()


def test_bad_checkpoints_and_videos(workers, cluster, videos, tmp_path):
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv"), videos)
    with (
        pytest.raises(SfllavaError, match=r"a worker on .* cannot load the model: /nowhere: no such checkpoint"),
        RayRunner("/nowhere", 3, cluster.address) as bad,
    ):
        run(bad, benchmark, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # a video that this machine has and a worker's node has not, and one that is gone since
    shutil.copytree(videos, tmp_path / "videos")
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv"), tmp_path / "videos")
    benchmark.find_video("a")
    (tmp_path / "videos" / "c.mp4").unlink()
    scores = run(workers, benchmark, tmp_path / "gone").scores[SMALL.name]
    assert scores["reasons"] == {f"{tmp_path / 'videos' / 'c.mp4'}: no such video any more": 4}
    with pytest.raises(SfllavaError, match="a setting cannot be sent to the workers"):
        run(workers, benchmark, tmp_path / "bad", Setting(4, Own(print, threading.Lock())))


def test_a_node_killed_with_and_without_room_left(workers, cluster, models, checkpoints, twelve, tmp_path):
    """`workers` has all of the head's room, so these two stand on the other nodes."""
    setting = Setting(6, Own(take_time))
    whole = rows_of(run(models(), twelve, tmp_path / "whole", setting).path)
    for _ in range(2):
        cluster.add_node(num_cpus=1, **NODE)

    def nodes():
        return {node.node_id: node for node in cluster.worker_nodes}

    def kill(node, out):
        while not (out / "predictions.jsonl").exists() or not (out / "predictions.jsonl").stat().st_size:
            time.sleep(0.05)
        cluster.remove_node(nodes()[node], allow_graceful=False)

    def killed_in(pair, node, out):
        thread = threading.Thread(target=kill, args=(node, out))
        thread.start()
        ours = run(pair, twelve, out, setting)
        thread.join()
        assert rows_of(ours.path) == whole and "Ray: " in log_of(ours.path)

    def both_up():
        return len(pair._idle()) == 2 and all(worker.node in nodes() for worker in pair._workers)

    with RayRunner(checkpoints(), 2, cluster.address) as pair:
        until(both_up, pair)
        killed_in(pair, pair._workers[0].node, tmp_path / "room")  # its worker comes up on the third node
        until(both_up, pair)
        killed_in(pair, pair._workers[1].node, tmp_path / "no room")  # the other worker does it all
        assert len(pair._idle()) == 1
        cluster.add_node(num_cpus=1, **NODE)
        until(both_up, pair)  # room has come
    cluster.remove_node(cluster.worker_nodes.copy().pop())
    record(
        "Ray: a node killed", 2, 2, 0, "once with room for its worker elsewhere, once without; rows as from one process"
    )


class Stage:
    """Workers A, B, ... without Ray, whose results arrive as a script says; those in `coming` are not up yet.

    "A v1 ok" and "A v1 fail" are results, "C is up" ends its coming up, "A is lost" takes its node away, and "A is
    placed" on a new one. Where the script is over, time passes.
    """

    def __init__(self, monkeypatch, names: str, coming: str = ""):
        self.script, self.time, self.nodes = deque[str](), 0.0, {}
        self.workers = RayRunner("tiny", len(names))
        self.workers._info = SimpleNamespace(fingerprint="")  # type: ignore[assignment]
        for name in names:
            worker = RayWorker(self.actor(name), group=name, node="" if name in coming else f"node of {name}")
            self.nodes[name] = f"node of {name}"
            self.workers._workers.append(worker)
            if name in coming:
                self.workers._busy[(name, "is")] = (worker, None)
        monkeypatch.setattr(ray, "wait", self.wait)
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": node, "Alive": True} for node in self.nodes.values()])
        monkeypatch.setattr(
            ray.util, "placement_group_table", lambda name: {"bundles_to_node_id": {0: self.nodes.get(name, "")}}
        )
        monkeypatch.setattr("sfllava.runs.ray_runner.time", SimpleNamespace(monotonic=lambda: self.time))

    def actor(self, name):
        answer = SimpleNamespace(remote=lambda fingerprint, run, options, job, ahead: (name, job.video))
        return SimpleNamespace(answer=answer, call=SimpleNamespace(remote=lambda *_: (name, "call")))

    def wait(self, refs, timeout):
        if not self.script:
            assert self.time < 1000, "waits for ever"
            self.time += 50
            return [], refs
        name, what, self.how = self.script.popleft().split()
        if self.how in ("lost", "placed"):
            self.nodes.pop(name, None)
            self.nodes |= {name: f"new node of {name}"} if self.how == "placed" else {}
            return [], refs
        assert (name, what) in refs
        self.nodes.setdefault(name, f"node of {name}")
        return [(name, what)], refs

    def get(self, ref):
        name, what = ref
        if what == "call":
            return name
        error = "RuntimeError: CUDA error" if self.how == "fail" else None
        done = Outcome([{"video": what, "setting": "own", "error": error, "by": name}], what, error)
        return WorkerResult(self.workers._info if what == "is" else done, [], self.nodes[name], "host")

    def run(self, videos: int, *script: str) -> list[str]:
        """What is written of v1, v2, ..., in this order: video, worker, and whether it failed."""
        self.script.extend(script)
        jobs = [Job(f"v{i + 1}", "there", "", []) for i in range(videos)]
        rows: list[Any] = [row for rows in self.workers.run(GenerationOptions({}, 1, "", 0, 1), jobs) for row in rows]
        assert not self.script
        return [f"{row['video']} {row['by']} {'fail' if row['error'] else 'ok'}" for row in rows]


def test_a_video_that_two_workers_did_is_written_once(monkeypatch):
    """A worker whose node looked dead comes back with what another was given meanwhile."""
    both = ["A is lost", "B v2 ok", "A v1 fail", "B v1 fail", "C v3 ok", "C v1 fail"]
    assert Stage(monkeypatch, "ABC").run(3, *both) == ["v2 B ok", "v3 C ok", "v1 C fail"]
    answered = ["A is lost", "B v2 ok", "C is lost", "A v1 fail", "B v1 ok", "A v3 ok"]
    assert Stage(monkeypatch, "ABC").run(3, *answered) == ["v2 B ok", "v1 B ok", "v3 A ok"]
    answered = ["A is lost", "B v2 ok", "A v1 fail", "B v1 ok", "C v3 ok"]
    assert Stage(monkeypatch, "ABC").run(3, *answered) == ["v2 B ok", "v1 B ok", "v3 C ok"]
    later = ["A is lost", "B v2 ok", "B v1 fail", "A v1 ok", "C v3 ok"]
    assert Stage(monkeypatch, "ABC").run(3, *later) == ["v2 B ok", "v1 A ok", "v3 C ok"]


def test_the_last_videos_of_a_worker_that_fails_are_tried_by_another(monkeypatch):
    """Two are too few to tell that it is the worker, but enough to ask another."""
    for says in ("ok", "fail"):
        script = ["A v1 fail", "A v3 fail", "B v2 ok", f"B v1 {says}", f"B v3 {says}"]
        assert Stage(monkeypatch, "AB").run(3, *script) == ["v2 B ok", f"v1 B {says}", f"v3 B {says}"]


def test_a_worker_set_aside_leaves_only_what_no_other_did(monkeypatch):
    lost = ["A is lost", "B v2 ok", "C is lost", "D is lost"]
    script = [*lost, "A v1 fail", "A v3 fail", "B v1 ok", "A v4 fail", "B v3 ok", "B v4 ok"]
    assert Stage(monkeypatch, "ABCD").run(4, *script) == ["v2 B ok", "v1 B ok", "v3 B ok", "v4 B ok"]
    # what another holds back stays with it
    script = [*lost, "A v1 fail", "A v3 fail", "B v1 fail", "A v4 fail", "B v3 ok", "B v4 ok"]
    assert Stage(monkeypatch, "ABCD").run(4, *script) == ["v2 B ok", "v1 B fail", "v3 B ok", "v4 B ok"]


def test_a_run_waits_for_workers_that_come_up(monkeypatch, caplog):
    stage = Stage(monkeypatch, "ABC", coming="BC")
    failed = ["A v1 fail", "A v2 fail", "A v3 fail"]
    theirs = ["B v4 ok", "B v1 ok", "B v2 ok", "B v3 ok"]
    written = stage.run(4, *failed, "B is up", *theirs)
    assert written == ["v4 B ok", "v1 B ok", "v2 B ok", "v3 B ok"]
    assert caplog.text.count("no worker is left but 2 that come up and 0 whose nodes died: waiting for them") == 1


def test_a_run_stops_where_the_last_worker_is_lost(monkeypatch):
    failed = ["A v1 fail", "A v3 fail", "A v4 fail"]
    for script in (["B is lost", *failed], [*failed, "B is lost"]):
        stage = Stage(monkeypatch, "AB")
        with pytest.raises(SfllavaError, match=r"on one worker, and no other is left.*CUDA error"):
            stage.run(5, *script)
        assert 60 < stage.time < 200  # Ray has been given time to place it again
    theirs = ["B v2 ok", "B v5 ok", "B v1 ok", "B v3 ok", "B v4 ok"]
    for script in (["B is lost", *failed, "B is placed"], [*failed, "B is lost", "B is placed"]):
        written = Stage(monkeypatch, "AB").run(5, *script, *theirs)
        assert written == ["v2 B ok", "v5 B ok", "v1 B ok", "v3 B ok", "v4 B ok"]


def test_a_call_is_not_for_a_worker_set_aside(monkeypatch):
    stage = Stage(monkeypatch, "AB")
    failed = ["A v1 fail", "A v3 fail", "A v4 fail"]
    stage.run(4, *failed, "B v2 ok", "B v1 ok", "B v3 ok", "B v4 ok")
    assert stage.workers.call(process_of) == "B"
    stage.workers._busy[("B", "v0")] = (stage.workers._workers[1], Job("v0", "there", "", []))
    stage.script.append("B v0 ok")
    assert stage.workers.call(process_of) == "B" and not stage.script  # it was waited for
    with pytest.raises(SfllavaError, match="no other is left"):
        stage.run(6, *failed, "B v2 fail", "B v5 fail", "B v6 fail")
    with pytest.raises(SfllavaError, match=r"no other is left.*CUDA error"):
        stage.workers.call(process_of)


def test_shares_of_a_machine(caplog):
    def nodes(*rooms):
        return [{"Alive": True, "Resources": {"CPU": float(c), "GPU": float(g)}} for c, g in rooms]

    assert plan_workers(nodes((16, 0)), 4, 1, "auto", True) == (4, {"CPU": 4})
    assert plan_workers(nodes((3, 0), (3, 0)), 3, 1, "auto", False) == (
        3,
        {"CPU": 1},
    )  # two of 2 CPUs would leave one out
    assert plan_workers(nodes((0, 0), (8, 0), (8, 0)), None, 1, "auto", False) == (2, {"CPU": 8})
    assert plan_workers(nodes((0, 0), (64, 8), (64, 4)), None, 2, "auto", False) == (6, {"CPU": 1, "GPU": 2})
    assert plan_workers(nodes((64, 8)), 2, 1, "cpu", True) == (2, {"CPU": 32})
    assert not caplog.text
    assert plan_workers(nodes((64, 3)), 4, 1, "auto", True) == (4, {"CPU": 1, "GPU": 1})
    assert "there is room for 3 of 4 workers; the others join when there is more" in caplog.text
    with pytest.raises(SfllavaError, match="needed 2 GPUs for a worker, and Ray sees 1 here"):
        plan_workers(nodes((64, 1)), None, 2, "auto", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus-per-worker", "2"], "--gpus-per-worker needs --workers or --ray"),
        (["--workers", "0"], "needed at least one worker"),
        (["--workers", "2", "--device", "cuda:1"], "Ray chooses the GPU of each worker"),
        (["--ray", "ray://127.0.0.1:1"], "needed auto or HOST:PORT"),
        (["--workers", "2"], "pip install 'sfllava\\[cluster\\]'"),
    ],
)
def test_bad_options(videos, tmp_path, options, message, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    csv = questions_csv(tmp_path / "q.csv")
    common = ["evaluate", "open", "--questions", csv, "--videos", videos, "--model", "tiny", "--out", tmp_path / "run"]
    assert cli.main([*map(str, common), *options]) == 1
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "run").exists()


MINE = '''"""Which is best?"""

import time

from sfllava import Setting


class Slowly:
    def __call__(self, grid):
        time.sleep(0.4)  # so that there is a middle to be stopped in
        return grid[:, ::8, ::8].reshape(-1, grid.shape[-1])

    def __str__(self):
        return "slowly"


BENCHMARK = "open"
SETTINGS = [Setting(4, Slowly(), "own"), Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2", "named")]
'''


@pytest.fixture
def ablation(twelve, checkpoints, tmp_path):
    """The command of an ablation with a pool of one's own, in which there is a middle to be stopped in."""
    (tmp_path / "mine.py").write_text(MINE)
    return [
        *(sys.executable, "-m", "sfllava.cli", "ablate", str(tmp_path / "mine.py"), "--max-new-tokens", "6"),
        *("--questions", str(tmp_path / "q.csv"), "--videos", str(tmp_path / "videos"), "--model", str(checkpoints())),
        *("--out", str(tmp_path / "run")),
    ]


def stopped(command, rows: Path, signalled):
    """Send a signal as soon as there are rows; exit status, stderr, and the processes that it had started, by name."""
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **out)
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.05)
    children = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            children.append((child.name(), child))
    process.send_signal(signalled)
    _, err = process.communicate(timeout=60)
    assert 0 < rows.read_bytes().count(b"\n") < 48
    return process.returncode, err, children


def test_the_command_killed_and_started_again(ablation, models, twelve, tmp_path):
    """On a Ray that the command starts, and that ends with it, however it ends."""
    rows = tmp_path / "run" / "predictions.jsonl"
    code, _, children = stopped([*ablation, "--workers", "2"], rows, signal.SIGKILL)
    assert code == -signal.SIGKILL and {"raylet", "gcs_server"} <= {name for name, _ in children}
    # two small processes of Ray's end by themselves, but only after a minute in which they look for it
    started = [child for name, child in children if not name.endswith("Agent")]
    assert not psutil.wait_procs(started, timeout=30)[1], "processes were left behind"
    done = subprocess.run([*ablation, "--workers", "2"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path / "run")) and "raylet" not in done.stdout
    ablate(tmp_path / "mine.py", models(), twelve, tmp_path / "whole", max_new_tokens=6, progress=False)
    assert rows_of(tmp_path / "run") == rows_of(tmp_path / "whole") and len(rows_of(tmp_path / "run")) == 48
    assert (tmp_path / "run" / "scores.json").read_bytes() == (tmp_path / "whole" / "scores.json").read_bytes()
    assert json.loads((tmp_path / "run" / "costs.json").read_text()).keys() == {"own", "named"}
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 2
    record(
        "Ray: SIGKILL of ablate --workers 2",
        1,
        1,
        0,
        "all its processes ended within 30 s, except Ray's agents, which end later; rows as from one process",
    )


def test_the_command_interrupted_on_a_cluster(workers, cluster, ablation, tmp_path):
    on_cluster = [*ablation, "--ray", cluster.address, "--workers", "3"]
    code, err, _ = stopped(on_cluster, tmp_path / "run" / "predictions.jsonl", signal.SIGINT)
    assert code == 130 and "sfllava: stopped; run the same command again to continue" in err and "Traceback" not in err
    assert "there is room for" not in err  # for three in all; but two are taken, and one was enough
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 1:  # its worker has ended, that of the others has not
        assert time.monotonic() < deadline
        time.sleep(0.2)
