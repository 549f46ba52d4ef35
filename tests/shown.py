"""Read the commands and the Python code that README.md and docs/ show, so that tests can run them.

A fenced block is `sh` (commands), `console` ("$ " before a command, then its output), `python`, or something that is
not run: `text`, `yaml`, `csv`, `json`, `bibtex`, `bash` for scripts of a scheduler. On the line above it may be
`<!-- not run: REASON -->`, or for `console` `<!-- output not compared: REASON -->`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("sh", "console", "python")
OTHER = ("text", "yaml", "csv", "json", "bibtex", "bash", "toml", "html")
TOOLS = ("cat", "ls", "head", "mkdir", "cp", "mv")
_FENCE = re.compile(r"( *)```(.*)")
_MARK = re.compile(r" *<!-- (not run|output not compared): (.*?) *-->")
_SHELL = ("|", "||", "&&", "&", ";", ">", ">>", "<", "2>&1")
_HUB_NAME = re.compile(r"(llava-hf|Qwen|openai|google)/[\w.-]+")
VIDEOS = 3
"""As many videos are rendered where a page renders more"""


@dataclass(frozen=True)
class Block:
    """A fenced block: the line of its fence, its language, its text, and its mark with the reason ("" for none)."""

    line: int
    language: str
    text: str
    mark: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Command:
    """A command line as words, and the output that is shown for it (None where there is none)."""

    line: int
    words: tuple[str, ...]
    output: str | None = None


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found, lines, i = [], text.splitlines(), 0
    while i < len(lines):
        fence = _FENCE.fullmatch(lines[i])
        if fence is None:
            i += 1
            continue
        indent, start = len(fence[1]), i
        end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == "```"), len(lines))
        mark = _MARK.fullmatch(lines[start - 1]) if start else None
        body = "\n".join(line[indent:] for line in lines[start + 1 : end])
        found.append(Block(start + 1, fence[2].strip(), body, *(mark.groups() if mark else ())))
        i = end + 1
    return found


def commands(block: Block) -> list[Command]:
    """Return the command lines of a `sh`, `console`, `bash` or `yaml` block; comments are left out."""
    found: list[Command] = []
    lines, i = block.text.splitlines(), 0
    while i < len(lines):
        line, at = lines[i], block.line + 1 + i
        i += 1
        if block.language == "yaml":
            line = line.partition("entrypoint: ")[2]
        elif block.language == "console":
            if not line.startswith("$ "):
                if not found:
                    raise ValueError(f"line {at}: needed a line that begins with $, got {line!r}")
                found[-1] = Command(found[-1].line, found[-1].words, f"{found[-1].output or ''}{line}\n")
                continue
            line = line[2:]
        while line.endswith("\\") and i < len(lines):
            line = line[:-1] + lines[i].removeprefix("> ")
            i += 1
        if words := shlex.split(line, comments=True):
            found.append(Command(at, tuple(words)))
    return found


def substituted(words: tuple[str, ...]) -> list[str]:
    """Return a command with the tiny model for MODEL, SCORER and names on the hub, and at most three rendered videos."""
    found = ["tiny" if word in ("MODEL", "SCORER") or _HUB_NAME.fullmatch(word) else word for word in words]
    for i, word in enumerate(found[:-1]):
        if word == "--videos" and found[i + 1].isdecimal():
            found[i + 1] = str(min(VIDEOS, int(found[i + 1])))
    return found


def sfllava_arguments(words: tuple[str, ...]) -> list[str] | None:
    """Return what is passed to `sfllava` in a command line, also in one that another program starts; else None."""
    for i, word in enumerate(words):
        first = all("=" in before for before in words[:i]) or words[i - 1] == "--"
        if word == "sfllava" and first:
            rest = list(words[i + 1 :])
            end = next((j for j, one in enumerate(rest) if one in _SHELL), len(rest))
            return rest[:end]
    return None


def uses_shell(words: tuple[str, ...]) -> bool:
    """Return whether a command line has a pipe, a redirection or another operator of a shell."""
    return any(word in _SHELL or word.startswith("$(") for word in words)


def agrees(shown: str, printed: str) -> bool:
    """Return whether an output is as shown.

    Args:
        shown: what the page has; "..." stands for any text within a line, and as a line of its own for any lines.
        printed: what was printed; runs of spaces, and spaces and empty lines at an end, do not count.
    """
    pattern = ""
    for line in _plain(shown):
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(map(re.escape, line.split("..."))) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _plain(printed))) is not None


def _plain(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def python_code(block: Block) -> str:
    """Return the code of a block, with the tiny model for MODEL and names on the hub."""
    return re.sub(rf'"(?:MODEL|SCORER|{_HUB_NAME.pattern})"', '"tiny"', block.text)
