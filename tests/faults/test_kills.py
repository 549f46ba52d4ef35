"""SIGKILL at random moments of a command's life: started again, it ends as if nothing had been."""

from __future__ import annotations

import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
from commands import FAULTS, Command, left, make_commands, parts, said, twice
from fault_table import record, some
from openai_server import Server

SEED, PLACES = 11, 16  # requests of a judge at a time


@pytest.fixture(scope="module")
def server():
    with Server(faults={}, delay=0.02, retry_after=0.1, seed=3) as one:
        yield one


@pytest.fixture(scope="module")
def commands(tmp_path_factory, server) -> dict[str, Command]:
    return make_commands(tmp_path_factory, server)


class Watch:
    """A command at work on a folder."""

    def __init__(self, command: Command, out: Path, mark: dict[str, str]) -> None:
        self.command, self.out = command, out
        self.process = command.start(out, mark)
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def until(self, rows: int) -> bool:
        """Wait until so many rows are there; False where the process ended before."""
        while len(self.command.lines(self.out)) < rows:
            if self.process.poll() is not None:
                return False
            time.sleep(0.001)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait that long; False where the process ended before."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return True
        return False


@pytest.mark.parametrize("name", ["evaluate", "ablate", "judge"])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(commands, server, tmp_path, name):
    """Five kills in a folder: at a random moment before its first row, at three random rows, and after its last."""
    command, rounds, chance = commands[name], some(1, 5), random.Random(SEED)
    phases = ["before", *some(1, 3) * ["during"], "after"]
    mark = {"SFLLAVA_FAULT": uuid.uuid4().hex}
    server.behave(faults=FAULTS)
    command.prepare(tmp_path / "whole")
    watch = Watch(command, tmp_path / "whole", mark)
    watch.until(1)
    head = watch.seconds
    assert watch.process.wait() == 0, said(tmp_path / "whole")
    ended = time.time()
    # the tail begins where the rows were last written
    tail = max(0.05, ended - (tmp_path / "whole" / command.rows).stat().st_mtime)
    whole, rows = command.result(tmp_path / "whole"), len(command.lines(tmp_path / "whole"))

    killed: Counter[str] = Counter()
    problems: list[str] = []
    survived = lost = 0
    for i in range(rounds):
        out = tmp_path / f"killed-{i}"
        command.prepare(out)
        for phase in phases:
            for share in (1.0, 0.5, 0.25, 0.1, 0.0):  # once more, and sooner, where it ended before it could be killed
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
                    problems.append(f"exit status {status}: {said(out)[-500:]}")
                if hit and status:
                    after = len(command.lines(out))
                    killed["after" if after == rows else "during" if after else "before"] += 1
                    break
        code = command.run(out, env=mark)
        if not code and command.result(out) == whole and not twice(command, out) and not parts(out):
            survived += len(phases)
        else:
            problems.append(f"{out.name}: exit status {code}, other results, rows twice or parts left: "
                            f"{twice(command, out)} {parts(out)}: {said(out)[-500:]}")  # fmt: skip
    remaining = left(mark["SFLLAVA_FAULT"])
    told = f"rows as undisturbed, each once, no process or part left; {killed['before']} before the first row, " + (
        f"{killed['during']} between, {killed['after']} after the last"
    )
    record(f"SIGKILL: {name}", killed.total(), survived, lost, told)
    assert (problems, lost, remaining) == ([], 0, []), f"seed {SEED}"
    assert (killed.total(), survived) == (rounds * len(phases),) * 2
    if name == "judge":  # only what was in flight is paid for again
        paid = sum(server.counts()["completed"].values())
        assert paid <= rows * (1 + rounds) + PLACES * killed.total(), f"seed {SEED}"
