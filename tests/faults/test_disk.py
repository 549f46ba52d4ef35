"""A disk that is full, at many places of a command's life: one line that says where, and with space again it goes on."""

from __future__ import annotations

import math
import random
import re
import resource
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from commands import Command, make_commands, parts, said, undisturbed
from fault_table import record, some
from openai_server import Server

SEED, PAGE = 5, 4096
NAMES = ["evaluate", "ablate", "judge", "render", "figures"]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    with Server() as server:
        yield make_commands(tmp_path_factory, server)


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(bytes) -> a file system of that size, larger or smaller on later calls; skips where none is allowed."""
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
    """`n` random sizes, spread evenly over the orders of magnitude, growing."""
    chance, low, high = random.Random(seed), math.log(least), math.log(most)
    return [int(math.exp(low + (high - low) * (i + chance.random()) / n)) for i in range(n)]


def written(command: Command, out: Path, before: set[Path]) -> list[int]:
    """The sizes of the files that a command wrote; its log aside, which is let go where there is no room."""
    return [p.stat().st_size for p in out.rglob("*") if p.is_file() and p not in before and p.name != "log.txt"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["file limit", "small file system"])
def test_a_full_disk(commands, small_disk, tmp_path, tmp_path_factory, name, way):
    """Ever more room, never enough; then enough. RLIMIT_FSIZE cuts one file off, a small file system any of them."""
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
            # as on a full disk the write fails half-way, with an error of the same kind
            process = command.start(out)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
            code = process.wait()
        else:
            # where that is less than what is there already, there is just no room for more
            used = sum(-(-p.stat().st_size // PAGE) for p in out.rglob("*") if p.is_file()) * PAGE
            small_disk(max(limit, used))
            code = command.run(out)
        after, text = command.lines(out), said(out)
        lost += len(set(before) - set(after))
        last = (text.strip().splitlines() or [""])[-1]
        where = re.search(re.escape(str(out)) + r"(/[^\s:']+)?", last)
        if code == 1 and last.startswith("sfllava: ") and where and "Traceback" not in text and not parts(out):
            survived += 1
            named[Path(where[0]).name] += 1
        else:
            problems.append(f"{limit} bytes: exit status {code}, parts {parts(out)}: {text[-800:]}")
    if way != "file limit":
        small_disk(2**30)
    code = command.run(out)
    if code or command.result(out) != command.result(whole) or parts(out):
        problems.append(f"with room again: exit status {code}, or other results: {said(out)[-800:]}")
        survived = 0
    told = "exit status 1 and one line with the file, then as undisturbed: " + ", ".join(
        f"{file} {n}" for file, n in named.most_common()
    )
    record(f"disk full ({way}): {name}", len(limits), survived, lost, told)
    assert (problems, lost) == ([], 0), f"seed {SEED}"
