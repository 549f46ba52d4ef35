"""The disk is full at many points of a command: it ends with one line that names the file, and goes on with space."""

from __future__ import annotations

import math
import random
import re
import resource
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from commands import Command, make_commands, output, partial_files, undisturbed
from fault_table import record, some
from openai_server import Server

SEED, PAGE = 5, 4096
NAMES = ["evaluate", "ablate", "judge", "render", "figures"]
CASES = [(way, name) for way in ("file limit", "small file system") for name in NAMES]
if some(True, False):  # a sweep with its report takes a minute or two
    CASES.remove(("file limit", "ablate"))


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with Server() as server:
        yield make_commands(tmp_path_factory, server)


@pytest.fixture
def small_disk(tmp_path):
    """Return a function: bytes -> a file system of that size, which later calls resize. Skip if mounting fails."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def resize(size: int) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted = True
        return folder

    yield resize
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def sizes(least: int, most: int, n: int, seed: int) -> list[int]:
    """Return `n` random sizes, evenly spread on a logarithmic scale, in ascending order."""
    chance, low, high = random.Random(seed), math.log(least), math.log(most)
    return [int(math.exp(low + (high - low) * (i + chance.random()) / n)) for i in range(n)]


def written(command: Command, out: Path, before: set[Path]) -> list[int]:
    """Return the sizes of the files that a command wrote, except its log, which it drops if the disk is full."""
    return [p.stat().st_size for p in out.rglob("*") if p.is_file() and p not in before and p.name != "log.txt"]


@pytest.mark.parametrize(("way", "name"), CASES)
def test_a_full_disk(commands, small_disk, tmp_path, tmp_path_factory, name, way):
    """Run with more and more space, but never enough; then with enough.

    RLIMIT_FSIZE limits the size of each file, a small file system that of all files together.
    """
    command = commands[name]
    whole = undisturbed(command, tmp_path_factory)
    command.prepare(tmp_path / "fresh")
    there = {whole / p.relative_to(tmp_path / "fresh") for p in (tmp_path / "fresh").rglob("*")}
    new = written(command, whole, there)
    tries = some(1, 4)
    if way == "file limit":
        out, limits = tmp_path / "limited", sizes(512, int(0.9 * max(new)), tries, SEED)
    else:
        pages = sum(-(-size // PAGE) for size in new)
        old = sum(-(-p.stat().st_size // PAGE) for p in there if p.is_file())
        limits = [(old + -(-n // PAGE)) * PAGE for n in sizes(PAGE, int(0.9 * pages) * PAGE, tries, SEED)]
        out = small_disk(2**30)
    command.prepare(out)
    survived = lost = 0
    named: Counter[str] = Counter()
    problems = []
    for limit in limits:
        before = command.lines(out)
        if way == "file limit":
            # as on a full disk, the write fails half-way with an OSError
            process = command.start(out)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
            code = process.wait()
        else:
            # if that is less than what is already used, there is no space for more
            used = sum(-(-p.stat().st_size // PAGE) for p in out.rglob("*") if p.is_file()) * PAGE
            small_disk(max(limit, used))
            code = command.run(out)
        after, text = command.lines(out), output(out)
        lost += len(set(before) - set(after))
        last = (text.strip().splitlines() or [""])[-1]
        where = re.search(re.escape(str(out)) + r"(/[^\s:']+)?", last)
        if code == 1 and last.startswith("sfllava: ") and where and "Traceback" not in text and not partial_files(out):
            survived += 1
            named[Path(where[0]).name] += 1
        else:
            problems.append(f"{limit} bytes: exit status {code}, partial files {partial_files(out)}: {text[-800:]}")
    if way != "file limit":
        small_disk(2**30)
    code = command.run(out)
    if code or command.result(out) != command.result(whole) or partial_files(out):
        problems.append(f"with space again: exit status {code}, or other results: {output(out)[-800:]}")
        survived = 0
    outcome = "exit status 1 and one line with the file; then as in an undisturbed run. Files: " + ", ".join(
        f"{file} {n}" for file, n in named.most_common()
    )
    record(f"disk full ({way}): {name}", len(limits), survived, lost, outcome)
    assert (problems, lost) == ([], 0), f"seed {SEED}"
