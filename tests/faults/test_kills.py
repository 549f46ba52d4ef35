"""SIGKILL at random moments of a command's life: started again, it ends as if nothing had been."""

from __future__ import annotations

import random
import signal
import subprocess
import time
import uuid
from collections import Counter

import pytest
from commands import FAULTS, Command, left, make_commands, parts, said, twice
from openai_server import Server

from figures import record, some

SEED, PLACES = 11, 16  # requests of a judge at a time


@pytest.fixture(scope="module")
def server():
    with Server(faults={}, delay=0.02, retry_after=0.1, seed=3) as one:
        yield one


@pytest.fixture(scope="module")
def commands(tmp_path_factory, server) -> dict[str, Command]:
    return make_commands(tmp_path_factory.mktemp("kills"), server)


@pytest.mark.parametrize("name", ["evaluate", "ablate", "judge"])
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(commands, server, tmp_path, name):
    """Killed wherever it is of its life, started again and again; whenever it comes through, in a new folder."""
    command, kills = commands[name], some(2 if name == "ablate" else 3, 25)
    server.behave(faults=FAULTS)
    command.prepare(tmp_path / "whole")
    start = time.monotonic()
    assert command.run(tmp_path / "whole") == 0, said(tmp_path / "whole")
    life = time.monotonic() - start
    whole, rows = command.result(tmp_path / "whole"), len(command.lines(tmp_path / "whole"))

    chance, mark = random.Random(SEED), {"SFLLAVA_FAULT": uuid.uuid4().hex}
    lives = [life * (i + chance.random()) / kills for i in range(kills)]  # spread over the whole of it
    chance.shuffle(lives)
    moments: Counter[str] = Counter()
    problems: list[str] = []
    survived = lost = killed = rounds = 0
    while killed < kills:
        out = tmp_path / f"killed-{rounds}"
        rounds += 1
        command.prepare(out)
        since, through = 0, False
        while not through:
            before = command.lines(out)
            process = command.start(out, mark)
            try:
                # what was killed last ends undisturbed
                through = process.wait(lives[killed] if killed < kills else None) == 0
                if not through:
                    problems.append(f"exit status {process.returncode}: {said(out)[-500:]}")
                    break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed, since = killed + 1, since + 1
                after = command.lines(out)
                moments["after" if len(after) == rows else "during" if len(after) > len(before) else "before"] += 1
            lost += len(set(before) - set(command.lines(out)))
            if through and killed < kills and not since:
                lives[killed] *= 0.8  # as long as it takes by itself: nothing to kill
        if through and command.result(out) == whole and not twice(command, out) and not parts(out):
            survived += since
        else:
            problems.append(f"{out.name}: other results, rows twice or parts left: {twice(command, out)} {parts(out)}")
    remaining = left(mark["SFLLAVA_FAULT"])
    told = f"rows as undisturbed, each once, no process or part left; {moments['before']} before, " + (
        f"{moments['during']} during and {moments['after']} after the writing of rows"
    )
    record(f"SIGKILL: {name}", killed, survived, lost, told)
    assert (problems, lost, remaining) == ([], 0, []), f"seed {SEED}"
    if name == "judge":  # only what was in flight is paid for again
        paid = sum(server.counts()["completed"].values())
        assert paid <= rows * (1 + rounds) + PLACES * killed, f"seed {SEED}"
