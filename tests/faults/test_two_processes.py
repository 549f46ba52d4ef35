"""Two processes on one run folder: the second is told so and ends, the first does not notice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from commands import Command, make_commands, said, undisturbed
from fault_table import record
from openai_server import Server


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with Server(delay=0.05) as server:
        yield make_commands(tmp_path_factory, server)


def stopped_on_the_way(command: Command, folder: Path, n: int):
    """A process that holds its folder and stands still (SIGSTOP), and the folder."""
    for attempt in range(20):  # a machine with much to do may let one through before it is stopped
        out = folder / str(attempt)
        command.prepare(out)
        process = command.start(out)
        while process.poll() is None and not command.lines(out):
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
        if process.poll() is None and len(command.lines(out)) < n:
            return process, out
        process.send_signal(signal.SIGCONT)
        process.wait()
    raise AssertionError("it was never stopped on the way")


@pytest.mark.parametrize("name", ["evaluate", "ablate", "judge"])
def test_the_second_is_refused_and_the_first_is_undisturbed(commands, tmp_path, tmp_path_factory, name):
    command = commands[name]
    whole = undisturbed(command, tmp_path_factory)
    first, out = stopped_on_the_way(command, tmp_path, len(command.lines(whole)))
    try:
        first_said, before = said(out), command.lines(out)
        code = command.run(out)
        last = said(out).strip().splitlines()[-1]
        refused = code == 1 and last.startswith(f"sfllava: {out}") and "another process is writing th" in last
        lost = len(set(before) - set(command.lines(out)))
    finally:
        first.send_signal(signal.SIGCONT)
        code = first.wait()
    same = code == 0 and command.result(out) == command.result(whole)
    told = "the second refused with one line, the first as undisturbed"
    record(f"two processes on one folder: {name}", 1, int(refused and same), lost, told)
    assert refused and same and not lost, (last, first_said, code)
