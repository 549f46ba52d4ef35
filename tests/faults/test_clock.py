"""The wall clock jumps back by a day, or forward by a year, during a run: nothing hangs, and nothing is lost."""

from __future__ import annotations

import os
import re

import pytest
from commands import FAULTS, Command, make_commands, output, undisturbed
from conftest import ROOT
from fault_table import record, some
from openai_server import Server

BACK, FORWARD = ("back by a day", -86_400), ("forward by a year", 31_536_000)
# each process of the command imports this when it starts; the clock jumps once the first row is on disk
JUMPING = """
import os, time

clock, clock_ns, file = time.time, time.time_ns, os.environ["JUMP_WITH"]


def jump():
    return int(os.environ["JUMP_BY"]) if os.path.exists(file) and os.path.getsize(file) else 0


time.time = lambda: clock() + jump()
time.time_ns = lambda: clock_ns() + jump() * 10**9
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clock")
    (folder / "sitecustomize.py").write_text(JUMPING)
    with Server(faults=FAULTS, delay=0.02, retry_after=0.1, seed=3) as server:
        yield folder, make_commands(tmp_path_factory, server)


@pytest.mark.parametrize(("name", "jump"), [("evaluate", BACK), ("judge", FORWARD)])
def test_a_clock_that_jumps_during_a_run(commands, tmp_path, tmp_path_factory, name, jump):
    folder, by_name = commands
    command: Command = by_name[name]
    whole, problems, lost = undisturbed(command, tmp_path_factory), [], 0
    jumps = some([jump], [BACK, FORWARD])
    for jump, by in jumps:
        out = tmp_path / jump.replace(" ", "-")
        command.prepare(out)
        env = {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "TQDM_MININTERVAL": "0"}
        code = command.run(out, env=env | {"JUMP_BY": str(by), "JUMP_WITH": str(out / command.rows)})
        lost += len(command.lines(whole)) - len(command.lines(out))
        text = output(out)
        if code or command.result(out) != command.result(whole):
            problems.append(f"{jump}: exit status {code}, or other results: {text[-500:]}")
        days = re.findall(r"^\d{4}-\d\d-\d\d", (out / "log.txt").read_text(), re.MULTILINE)
        if days[0] == days[-1]:
            problems.append(f"{jump}: the log has only one day: {days}")
        # the progress bar goes on, and shows a plausible time left
        shown = {int(n) for n in re.findall(r"\| *(\d+)/", text)}
        if len(shown) < 5 or re.search(r"\d:\d\d:\d\d", text.split("\n/")[0]):
            problems.append(f"{jump}: the bar showed {sorted(shown)}: {text[-500:]}")
    outcome = (
        "results as in an undisturbed run, the bar goes on; back by a day and forward by a year, after the first row"
    )
    record(f"clock set: {name}", len(jumps), len(jumps) - len(problems), lost, outcome)
    assert (problems, lost) == ([], 0)
