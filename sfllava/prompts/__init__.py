"""A prompt is a text file with `<video>`, `{question}` and `{options}`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sfllava.files import is_url
from sfllava.types import Question, SfllavaError, Task

PROMPT_FIELDS = ("question", "options")
# a word in braces; not JSON, nor LaTeX's \boxed{answer}, nor doubled braces
_PLACEHOLDER = re.compile(r"(?<![\w{$])\{([A-Za-z_]\w*)\}(?!\})")


def check_placeholders(text: str, source: str, known: Sequence[str] = PROMPT_FIELDS) -> None:
    """Raise SfllavaError for a placeholder such as {subtitles} that is not known: nothing would fill it in."""
    if unknown := [name for name in _PLACEHOLDER.findall(text) if name not in known]:
        listed = ", ".join(f"{{{name}}}" for name in known)
        raise SfllavaError(f"{source}: nothing fills in {{{unknown[0]}}}; the placeholders are {listed}")


FAMILIES = ("vicuna", "chatml", "mistral")
PACKS = (*FAMILIES, "tiny")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VIDEO = "<video>"
_FIELDS = re.compile("|".join(rf"\{{{name}\}}" for name in PROMPT_FIELDS))


@dataclass(frozen=True)
class Prompt:
    """The text of a prompt; `source` says where it is from."""

    text: str
    source: str = "text"

    def __post_init__(self) -> None:
        if (found := self.text.count(VIDEO)) != 1:
            raise SfllavaError(
                f"{self.source}: a prompt needs {VIDEO} once, where the video goes; found it {found} times"
            )
        if "{question}" not in self.text:
            raise SfllavaError(f"{self.source}: a prompt needs {{question}}, where the question goes")

    def pieces(self, question: Question) -> tuple[str, str]:
        """The text before and behind the video, filled in. Braces or tags in a question stay text."""
        if question.options and "{options}" not in self.text:
            raise SfllavaError(f"{self.source}: a prompt for questions with options needs {{options}}")
        fill = {"{question}": question.text, "{options}": options_text(question.options)}
        before, _, after = self.text.partition(VIDEO)
        return _FIELDS.sub(lambda m: fill[m[0]], before), _FIELDS.sub(lambda m: fill[m[0]], after)


def options_text(options: tuple[str, ...]) -> str:
    """One lettered option a line: (A) first, (B) second."""
    if len(options) > len(LETTERS):
        raise SfllavaError(f"needed at most {len(LETTERS)} options, got {len(options)}")
    return "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options))


def load_prompt(path: str | Path) -> Prompt:
    """A prompt from a UTF-8 file, byte for byte."""
    if is_url(path):
        raise SfllavaError(f"{path}: needed a prompt's file on this machine, got a URL: download it first")
    try:
        prompt = Prompt(Path(path).read_bytes().decode("utf-8"), str(path))
    except OSError as error:
        raise SfllavaError(f"{path}: cannot read the prompt: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SfllavaError(f"{path}: the prompt must be UTF-8: {error}") from error
    check_placeholders(prompt.text, prompt.source)
    return prompt


def pack_prompt(family: str, task: Task) -> Prompt:
    """The package's own wording for a language-model family (vicuna, chatml, mistral, tiny) and a task."""
    if family not in PACKS:
        raise SfllavaError(f"no prompt pack is called {family!r}; there are {', '.join(PACKS)}")
    file = resources.files("sfllava.prompts") / "templates" / family / f"{task}.txt"
    return Prompt(file.read_bytes().decode("utf-8"), f"{family}/{task}")
