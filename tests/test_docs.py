"""What README.md and docs/ show is run: command by command, page by page, on the small model in the package."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from shell import sfllava as run_sfllava
from shown import (
    OTHER,
    PAGES,
    ROOT,
    RUN,
    TOOLS,
    VIDEOS,
    Block,
    Command,
    agrees,
    blocks,
    commands,
    python_code,
    sfllava_arguments,
    substituted,
    uses_shell,
)

from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.cli import make_parser

# one process for all pages: they share the folder and the process that commands are forked from
pytestmark = pytest.mark.xdist_group("docs")
SHAPES = (
    "--frames",
    "8",
    "--aggregation",
    "slowfast-slow_2frms_concat-fast_2x2",
    "slowfast-slow_0frms_concat-fast_2x2",
)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory) -> Path:
    """The folder that the commands of each page find: a clip, questions about own videos, a root folder, two runs."""
    folder = tmp_path_factory.mktemp("shown")
    root = write_shapesqa(folder / "ROOT", VIDEOS)
    shutil.copytree(root / "videos", folder / "my_videos")
    shutil.copy(min((root / "videos").glob("*.mp4")), folder / "clip.mp4")
    shutil.copy(root / "shapesqa_choice.csv", folder / "mine.csv")
    shutil.copy(root / "shapesqa_open.csv", folder / "open.csv")
    for name, place in (("EgoSchema", "EgoSchema"), ("NExT_QA", "NExTQA")):
        (root / "data/multiple_choice_qa" / place).mkdir(parents=True)
        (root / "multiple_choice_qa").mkdir(exist_ok=True)
        shutil.copytree(root / "videos", root / "data/multiple_choice_qa" / place / "video")
        shutil.copy(root / "shapesqa_choice.csv", root / f"multiple_choice_qa/{name}.csv")
    common = ("evaluate", "shapesqa", "--root", "ROOT", "--model", "tiny", "--max-new-tokens", "8")
    for name, more in (("RUN", ()), ("RUN2", ("--dtype", "bfloat16"))):
        done = run_sfllava(*common, *SHAPES, *more, "--out", name, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(furnished, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, in which the test is; caches are in it, too."""
    shutil.copytree(furnished, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "page"


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_blocks_say_what_they_are(path):
    """Each has a language, each mark a reason, and no mark stands apart from its block."""
    text = path.read_text()
    found = blocks(text)
    for block in found:
        assert block.language in RUN + OTHER, f"line {block.line}: no language, or {block.language}"
        assert not block.mark or len(block.reason) > 4, f"line {block.line}: needed a reason"
    marks = len(re.findall(r"^ *<!-- (?:not run|output not compared)", text, re.M))
    assert marks == sum(bool(block.mark) for block in found), "a mark that is not on the line above a fence"


def test_pages_that_are_named_elsewhere_exist():
    """In help texts, errors and docstrings, and in the files beside the documentation."""
    files = [path for folder in ("sfllava", "tests", "bench") for path in (ROOT / folder).rglob("*.py")]
    for path in [*files, *ROOT.glob("*.md"), ROOT / "Makefile"]:
        for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|png)\b", path.read_text()):
            assert (ROOT / page).exists(), f"{named(path)}: {page}"


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_what_is_not_run_has_no_wrong_flag(path, capsys):
    for block in blocks(path.read_text()):
        if block.language in ("bash", "yaml") or (block.language in RUN and block.mark == "not run"):
            if block.language == "python":
                compile(block.text, f"{path}:{block.line}", "exec")
                continue
            for command in commands(block):
                arguments = sfllava_arguments(command.words)
                if arguments is not None:
                    parse(arguments, f"{path.name}, line {command.line}", capsys)


def parse(arguments: list[str], where: str, capsys) -> None:
    try:
        make_parser().parse_args(arguments)
    except SystemExit as end:
        assert not end.code, f"{where}: {capsys.readouterr().err}"


@pytest.mark.parametrize("path", [path for path in PAGES if "```" in path.read_text()], ids=named)
def test_what_is_shown_runs(path, place):
    names: dict[str, object] = {"__name__": "__main__"}
    variables: dict[str, str] = {}
    for block in blocks(path.read_text()):
        if block.language not in RUN or block.mark == "not run":
            continue
        if block.language == "python":
            code = compile(python_code(block), f"{path}:{block.line}", "exec")
            exec(code, names)  # noqa: S102  # the repository's own pages
            continue
        for command in commands(block):
            execute(command, block, variables, path)


def execute(command: Command, block: Block, variables: dict[str, str], path: Path) -> None:
    where = f"{named(path)}, line {command.line}"
    first, words = command.words[0], substituted(command.words)
    assert not uses_shell(command.words), f"{where}: pipes and redirections are not run: mark the block as not run"
    if first == "export":
        variables.update(word.split("=", 1) for word in words[1:])
        return
    if first == "sfllava":
        done = run_sfllava(*words[1:], **variables)
    else:
        assert first in TOOLS, f"{where}: {first} is not run by the tests: mark the block as not run, with the reason"
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, f"{where}: {done.stderr}\n{done.stdout}"
    if block.mark != "output not compared" and command.output is not None:
        printed = done.stdout or done.stderr
        assert agrees(command.output, printed), f"{where}: shown\n{command.output}\nprinted\n{printed}"


PAGE = """
```sh
sfllava ask clip.mp4 "what?" \\
  --model MODEL   # a comment
```

<!-- not run: needs a GPU -->
```console
$ srun ray start -- sfllava ask clip.mp4 "what?" --frmes 8 | tee log
8 frames
```
"""


def test_the_reader_of_pages(capsys):
    first, second = blocks(PAGE)
    (ask,) = commands(first)
    assert substituted(ask.words) == ["sfllava", "ask", "clip.mp4", "what?", "--model", "tiny"] and not first.mark
    (other,) = commands(second)
    assert (second.mark, second.reason, other.output, other.line) == ("not run", "needs a GPU", "8 frames\n", 9)
    assert uses_shell(other.words) and not uses_shell(ask.words)
    arguments = sfllava_arguments(other.words)
    assert arguments == ["ask", "clip.mp4", "what?", "--frmes", "8"]
    with pytest.raises(AssertionError, match="no option is called --frmes"):
        parse(arguments, "here", capsys)
    assert sfllava_arguments(("pip", "install", "sfllava", "lmms-eval")) is None
    assert substituted(("sfllava", "render", "x", "--videos", "100"))[-1] == str(VIDEOS)


def test_how_outputs_are_compared():
    printed = "accuracy  50.0 %\n\n  in 2.1 s \nthe end\n"
    for shown in ("accuracy 50.0 %\nin ... s\nthe end\n", "accuracy ...\n...\n", "...\nthe end", printed):
        assert agrees(shown, printed)
    for shown in ("accuracy 50.1 %\n...", "in 2.1 s\nthe end", "accuracy ...\nthe end", ""):
        assert not agrees(shown, printed)


def test_every_question_file_of_the_pages_is_there(place):
    """What pages rely on: questions about the videos, in both forms, and finished runs with two settings."""
    for name in ("mine.csv", "open.csv"):
        with Path(name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {f"{row['video_name']}.mp4" for row in rows} == {path.name for path in Path("my_videos").iterdir()}
        assert ("a3" in rows[0]) == (name == "mine.csv")
    done = run_sfllava("compare", "RUN", "RUN2")
    assert done.returncode == 0 and "RUN2" in done.stdout, done.stderr
