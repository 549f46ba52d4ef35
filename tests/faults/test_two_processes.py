"""Two processes on one run folder: the second ends with an error, and the first is not affected."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from commands import Command, make_commands, output, undisturbed
from fault_table import record
from openai_server import Server


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with Server(delay=0.05) as server:
        yield make_commands(tmp_path_factory, server)


def stopped_midway(command: Command, folder: Path, n: int):
    """Return a process that holds its folder and is stopped (SIGSTOP), and the folder."""
    for attempt in range(20):  # on a busy machine, a process may finish before it is stopped
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
    raise AssertionError("no process was stopped before it finished")


@pytest.mark.parametrize("name", ["evaluate", "ablate", "judge"])
def test_the_second_is_refused_and_the_first_is_undisturbed(commands, tmp_path, tmp_path_factory, name):
    command = commands[name]
    whole = undisturbed(command, tmp_path_factory)
    first, out = stopped_midway(command, tmp_path, len(command.lines(whole)))
    try:
        first_output, before = output(out), command.lines(out)
        code = command.run(out)
        last = output(out).strip().splitlines()[-1]
        refused = code == 1 and last.startswith(f"sfllava: {out}") and "another process is writing th" in last
        lost = len(set(before) - set(command.lines(out)))
    finally:
        first.send_signal(signal.SIGCONT)
        code = first.wait()
    same = code == 0 and command.result(out) == command.result(whole)
    outcome = "the second refused with one line; the first as in an undisturbed run"
    record(f"two processes on one folder: {name}", 1, int(refused and same), lost, outcome)
    assert refused and same and not lost, (last, first_output, code)
