"""The commands that the fault tests disturb, run as real processes, and their results on disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT
from judged_runs import open_rows, write_run
from openai_server import Server
from small_runs import plain

from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.cli import main
from sfllava.files import partial_path
from sfllava.runs.run_folder import read_rows
from sfllava.runs.verdicts import read_verdicts
from sfllava.sampler.reading import read_video

JUDGE = "openai-judge-2026-01-01"
# the transient failures of a judge's requests: every verdict must arrive in the end, even if its process was killed
FAULTS = dict.fromkeys(("rate_limit", "server_error", "cut", "reset", "duplicate"), 0.02)
ABLATION = '''"""Which grid is best?"""

from sfllava import Setting, SlowFast

BENCHMARK = "shapesqa"
SETTINGS = [Setting(8, SlowFast(4, "spatial_1d_max_pool", (g, g)), f"fast {g}") for g in (1, 2, 4)]
'''


@dataclass(frozen=True)
class Command:
    """A command that runs on an output folder.

    Attributes:
        name: the command's name.
        arguments: folder -> its command line arguments.
        result: folder -> the result, which must be the same however often the command was disturbed.
        rows: the file in the folder to which it appends rows.
        prepare: creates the files that the command needs in the folder.
        env: additional environment variables.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    rows: str = ""
    prepare: Callable[[Path], Any] = lambda out: None
    env: dict[str, str] = field(default_factory=dict)

    def start(self, out: Path, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start the process; its output goes to a file next to the folder, which `output` reads."""
        line = [sys.executable, "-m", "sfllava.cli", *self.arguments(out)]
        with output_path(out).open("w") as file:
            env = {**os.environ, "PYTHONPATH": str(ROOT), **self.env, **(env or {})}
            return subprocess.Popen(line, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=env, **options)

    def run(self, out: Path, **options: Any) -> int:
        """Run it to the end, and return its exit status."""
        return self.start(out, **options).wait()

    def lines(self, out: Path) -> list[bytes]:
        """Return the complete lines of its file of rows."""
        file = out / self.rows
        lines = file.read_bytes().splitlines(keepends=True) if self.rows and file.exists() else []
        return [line for line in lines if line.endswith(b"\n")]


def output_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.output")


def output(out: Path) -> str:
    """Return what the last process on a folder printed."""
    return output_path(out).read_text(errors="replace")


_made: dict[tuple[Any, ...], Path] = {}  # made once for the tests of all modules


def make_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the commands' inputs, once, and return their folder: six videos, a run on them and an ablation."""
    if ("inputs",) in _made:
        return _made["inputs",]
    folder = tmp_path_factory.mktemp("inputs")
    write_shapesqa(folder / "shapes", 6)
    words = ["--root", str(folder / "shapes"), "--model", "tiny", "--max-new-tokens", "6", "--out", str(folder / "run")]
    assert main(["evaluate", "shapesqa", *words, "--frames", "8", "16", "32"]) == 0
    (folder / "grids.py").write_text(ABLATION)
    write_run(folder / "predictions", open_rows(300))
    _made["inputs",] = folder
    return folder


def make_commands(tmp_path_factory: pytest.TempPathFactory, server: Server) -> dict[str, Command]:
    """Return the commands by name."""
    folder = make_inputs(tmp_path_factory)
    ablation, common = folder / "grids.py", ["--root", str(folder / "shapes"), "--model", "tiny"]
    common += ["--max-new-tokens", "6"]
    commands = [
        Command("render", lambda out: ["render", str(out), "--videos", "6"], rendered),
        Command(
            "evaluate",
            lambda out: ["evaluate", "shapesqa", *common, "--frames", "8", "16", "32", "--out", str(out)],
            evaluated,
            "predictions.jsonl",
        ),
        Command(
            "ablate", lambda out: ["ablate", str(ablation), *common, "--out", str(out)], ablated, "predictions.jsonl",
            env={"IPYTHONDIR": str(folder / "ipython")},
        ),
        Command(
            "judge",
            lambda out: ["judge", str(out), "--judge", "openai", "--model", "judge-2026-01-01", "--yes"],
            judged,
            f"verdicts-{JUDGE}.jsonl",
            lambda out: shutil.copytree(folder / "predictions", out, dirs_exist_ok=True),
            {k: v for k, v in server.environment().items() if k.startswith("OPENAI_")},
        ),
        Command("figures", lambda out: ["figures", str(folder / "run"), "--out", str(out)], files),
    ]  # fmt: skip
    return {command.name: command for command in commands}


def undisturbed(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of an undisturbed run of a command, made once for the tests of all modules."""
    key = (command.name, *sorted(command.env.items()))
    if key not in _made:
        out = tmp_path_factory.mktemp("undisturbed") / command.name
        command.prepare(out)
        assert command.run(out) == 0, output(out)
        _made[key] = out
    return _made[key]


def evaluated(out: Path) -> Any:
    identity = json.loads((out / "run.json").read_text())["identity"]
    return identity, json.loads((out / "scores.json").read_text()), plain(read_rows(out))


def ablated(out: Path) -> Any:
    costs = json.loads((out / "costs.json").read_text())
    report = (out / "report.html").read_text()
    ends = {
        path.name: path.read_bytes()[-8:] for path in (out / "figures").iterdir() if path.suffix in (".png", ".svg")
    }
    # times differ between runs, and so do the bytes of figures that show them
    names = sorted(path.name for path in (out / "figures").iterdir())
    return *evaluated(out), sorted(costs), report.rstrip().endswith("</html>"), names, ends


def judged(out: Path) -> Any:
    kept = ("key", "setting", "rubric", "content", "correct", "score", "judge", "model", "served", "cut", "error")
    rows = [{name: row[name] for name in kept} for row in read_verdicts(out / f"verdicts-{JUDGE}.jsonl")]
    about = json.loads((out / f"verdicts-{JUDGE}.json").read_text())
    return about["identity"], sorted(rows, key=lambda row: row["key"])


def files(out: Path) -> Any:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def rendered(out: Path) -> Any:
    # the encoder's bytes are not deterministic; the number and size of the frames are
    tables = {path.name: path.read_text() for path in sorted(out.glob("*.csv"))}
    videos = {path.name: read_video(path, 64) for path in sorted((out / "videos").iterdir())}
    return tables, {name: (video.total, video.size, video.damage) for name, video in videos.items()}


def duplicates(command: Command, out: Path) -> int:
    """Return how many rows are duplicates."""
    rows = [json.loads(line) for line in command.lines(out)]
    return len(rows) - len({(row["key"], row["setting"], row.get("rubric")) for row in rows})


def partial_files(out: Path) -> list[str]:
    """Return the names of partial files that were left behind."""
    prefix = partial_path(Path("x")).name.removesuffix("x")
    return [path.name for path in out.rglob(f"{prefix}*")]


def still_running(mark: str) -> list[list[str]]:
    """Return the command lines of processes with `mark` in their environment that still run after a minute."""
    end = time.monotonic() + 60
    while found := [line for line in (_marked(process, mark) for process in psutil.process_iter()) if line]:
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return found


def _marked(process: psutil.Process, mark: str) -> list[str]:
    try:
        marked = mark in process.environ().values() or process.name() == mark[:15]
        return [process.name(), *process.cmdline()] if marked else []
    except psutil.Error:  # it has ended, is a zombie, or belongs to another user
        return []
