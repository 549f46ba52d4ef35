"""Runs on Ray: real clusters of real processes on this machine, killed in earnest."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

# before ray is imported: all on the loopback, a token of our own, nothing sent anywhere
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())

import ray
from ray.cluster_utils import Cluster
from test_evaluate import SETTINGS, SMALL, log_of, plain, questions_csv, run

from sfllava import cli
from sfllava.benchmarks import load_benchmark
from sfllava.cluster import Workers, _plan
from sfllava.jobs import Job
from sfllava.runfolder import RunFolder, read_rows
from sfllava.types import Setting, SfllavaError

pytestmark = pytest.mark.xdist_group("ray")
NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 2**27}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster whose head has room for two workers; tests add nodes and kill them."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 2, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def workers(cluster, checkpoints):
    with Workers(checkpoints(), 2, cluster.address) as workers:
        yield workers


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


def test_a_video_that_kills_three_times_is_set_aside(workers, benchmark, tmp_path):
    settings = [SMALL, Setting(30, Own(kill_always, str(tmp_path / "tries")))]
    ours = run(workers, benchmark, tmp_path / "ours", settings)
    assert (tmp_path / "tries").read_text() == "x\n" * 3
    rows = rows_of(ours.path)
    assert len(rows) == 24 and {row["video"] for row in rows if row["error"]} == {"b"}
    reasons = {row["error"] for row in rows if row["video"] == "b"}
    assert len(reasons) == 1 and re.match(r"killed its worker 3 times: .*process \d+ on .*127\.0\.0\.1", reasons.pop())
    assert "b: set aside: killed its worker 3 times" in log_of(ours.path)


def test_bad_checkpoints_and_videos(workers, cluster, checkpoints, videos, tmp_path):
    cluster_node = cluster.add_node(num_cpus=1, **NODE)
    try:
        with (
            pytest.raises(SfllavaError, match=r"a worker on .* cannot load the model: /nowhere: no such checkpoint"),
            Workers("/nowhere", 3, cluster.address) as bad,
        ):
            run(bad, load_benchmark("open", questions_csv(tmp_path / "q.csv"), videos), tmp_path / "run")
    finally:
        cluster.remove_node(cluster_node)
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
    """`workers` has all of the head's room, so these two stand on nodes of their own."""
    setting = Setting(6, Own(take_time))
    whole = rows_of(run(models(), twelve, tmp_path / "whole", setting).path)
    nodes = [cluster.add_node(num_cpus=1, **NODE) for _ in range(2)]

    def kill(node, out):
        while not (out / "predictions.jsonl").exists() or not (out / "predictions.jsonl").stat().st_size:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    with Workers(checkpoints(), 3, cluster.address) as three:
        while sum(worker.node != "" for worker in three._workers) < 2:
            list(three._collect())
        thread = threading.Thread(target=kill, args=(nodes[0], tmp_path / "no room"))
        thread.start()
        ours = run(three, twelve, tmp_path / "no room", setting)
        thread.join()
        assert rows_of(ours.path) == whole
        assert "2 of 3 workers are up" in log_of(ours.path)
        # room comes: one that waited joins; another node dies, and there is room for its worker
        more = [cluster.add_node(num_cpus=1, **NODE) for _ in range(2)]
        thread = threading.Thread(target=kill, args=(nodes[1], tmp_path / "room"))
        thread.start()
        ours = run(three, twelve, tmp_path / "room", setting)
        thread.join()
        assert rows_of(ours.path) == whole
    for node in more:
        cluster.remove_node(node)
