"""SIGKILL at random moments of a command: after a restart it gives the results of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
import warm
from commands import FAULTS, Command, duplicates, make_commands, output, partial_files, still_running
from fault_table import record, some
from openai_server import Server

SEED, CONCURRENT = 11, 16  # CONCURRENT: requests of a judge at a time


@pytest.fixture(scope="module")
def server():
    with Server(faults={}, delay=0.02, retry_after=0.1, seed=3) as one:
        yield one


@pytest.fixture(scope="module")
def commands(tmp_path_factory, server) -> dict[str, Command]:
    return make_commands(tmp_path_factory, server)


class Watch:
    """A command running on a folder."""

    def __init__(self, command: Command, out: Path, mark: dict[str, str]) -> None:
        self.command, self.out = command, out
        self.process = command.start(out, mark)
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def until(self, rows: int) -> bool:
        """Wait until there are so many rows; return False if the process ended before."""
        while len(self.command.lines(self.out)) < rows:
            if self.process.poll() is not None:
                return False
            time.sleep(0.001)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait that long; return False if the process ended before."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return True
        return False


@pytest.mark.parametrize("name", ["evaluate", "ablate", "judge"])
def test_killed_at_random_moments_it_gives_the_same_results(commands, server, tmp_path, name):
    """Five kills per folder: at a random moment before the first row, at three random rows, and after the last row."""
    command, rounds, chance = commands[name], some(1, 5), random.Random(SEED)
    phases = ["before", *some(1, 3) * ["during"], "after"]
    mark = {warm.MARK: uuid.uuid4().hex}
    server.behave(faults=FAULTS)
    command.prepare(tmp_path / "whole")
    watch = Watch(command, tmp_path / "whole", mark)
    watch.until(1)
    head = watch.seconds
    assert watch.process.wait() == 0, output(tmp_path / "whole")
    ended = time.time()
    # the tail begins when the last row was written
    tail = max(0.05, ended - (tmp_path / "whole" / command.rows).stat().st_mtime)
    whole, rows = command.result(tmp_path / "whole"), len(command.lines(tmp_path / "whole"))

    killed: Counter[str] = Counter()
    problems: list[str] = []
    survived = lost = 0
    for i in range(rounds):
        out = tmp_path / f"killed-{i}"
        command.prepare(out)
        for phase in phases:
            for share in (1.0, 0.5, 0.25, 0.1, 0.0):  # try again, and sooner, if it ended before it was killed
                before = command.lines(out)
                watch = Watch(command, out, mark)
                if phase == "before":
                    hit = watch.wait(share * chance.uniform(0, head))
                elif phase == "during" and len(before) < rows:
                    hit = watch.until(chance.randint(len(before) + 1, max(rows - 1, len(before) + 1)))
                else:
                    hit = watch.until(rows) and watch.wait(share * chance.uniform(0, tail))
                watch.process.send_signal(signal.SIGKILL)
                status = watch.process.wait()
                lost += len(set(before) - set(command.lines(out)))
                if status not in (0, -signal.SIGKILL):
                    problems.append(f"exit status {status}: {output(out)[-500:]}")
                if hit and status:
                    after = len(command.lines(out))
                    killed["after" if after == rows else "during" if after else "before"] += 1
                    break
        code = command.run(out, env=mark)
        if not code and command.result(out) == whole and not duplicates(command, out) and not partial_files(out):
            survived += len(phases)
        else:
            problems.append(f"{out.name}: exit status {code}, other results, duplicate rows or partial files: "
                            f"{duplicates(command, out)} {partial_files(out)}: {output(out)[-500:]}")  # fmt: skip
    remaining = still_running(mark[warm.MARK])
    outcome = (
        "rows as in an undisturbed run, none twice, no process or partial file left; "
        f"kills: {killed['before']} before the first row, {killed['during']} between rows, "
        f"{killed['after']} after the last"
    )
    record(f"SIGKILL: {name}", killed.total(), survived, lost, outcome)
    assert (problems, lost, remaining) == ([], 0, []), f"seed {SEED}"
    assert (killed.total(), survived) == (rounds * len(phases),) * 2
    if name == "judge":  # only the requests in flight are paid for again
        paid = sum(server.counts()["completed"].values())
        assert paid <= rows * (1 + rounds) + CONCURRENT * killed.total(), f"seed {SEED}"
