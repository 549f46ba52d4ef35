"""Prompts: text with `<video>`, `{question}`, `{options}` and `{subtitles}`.

The package's own prompts have two parts: wordings/TASK.txt is the instruction for a task, and
templates/FAMILY/video.txt is the chat format of a family of language models. A new family is a new folder in
templates/. If it has its own TASK.txt, that file replaces the whole prompt of the task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sfllava.catalogue import unknown_name
from sfllava.files import is_url
from sfllava.types import Question, SfllavaError, Task

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VIDEO = "<video>"
PROMPT_FIELDS = ("question", "options", "subtitles")
_TEMPLATES = Path(__file__).parent / "templates"
_WORDINGS = Path(__file__).parent / "wordings"
_REPLY = "\n[reply]\n"
"""The separator in a wording file between the request and the start of the reply"""
OPTION = "({label}) {option}"
_SUBTITLES = "Subtitles of the video:\n{subtitles}\n"
_FIELDS = re.compile("|".join(rf"\{{{name}\}}" for name in PROMPT_FIELDS))
# a word in braces; not JSON, nor LaTeX's \boxed{answer}, nor doubled braces
_PLACEHOLDER = re.compile(r"(?<![\w{$])\{([A-Za-z_]\w*)\}(?!\})")


@dataclass(frozen=True)
class Wording:
    """The wording of a prompt, without the chat format of a language model.

    Attributes:
        request: The user's turn after the video, with `{question}` and, for multiple choice, `{options}`.
        reply: The start of the reply, which the model continues.
        option: The format of one option, with `{label}` and `{option}`.
        subtitles: The text before the request if there are subtitles, with `{subtitles}`.
    """

    request: str
    reply: str = ""
    option: str = OPTION
    subtitles: str = _SUBTITLES

    def prompt(self, family: str, source: str) -> Prompt:
        """Return the prompt in the chat format of a family of language models.

        Args:
            family: The family; one of `families()`.
            source: The name of the prompt in error messages.
        """
        turn = _read_template(family, "video")
        # in some formats, the assistant's turn begins after a line break; in others, after a space
        reply = self.reply if turn.endswith("\n{reply}") or not self.reply else f" {self.reply}"
        text = turn.replace("{request}", self.request).replace("{reply}", reply)
        return Prompt(text, source, self.option, self.subtitles)


@dataclass(frozen=True)
class Prompt:
    """The text of a prompt, and where it comes from.

    Args:
        text: The prompt, with `<video>` once, `{question}`, and, for multiple choice, `{options}`. Without
            `{subtitles}`, the subtitles of a question come directly after the video.
        source: A file or a name, for error messages.
        option: The format of one option, with `{label}` and `{option}`.
        subtitles: The text directly after the video if there are subtitles, with `{subtitles}`.

    Raises:
        SfllavaError: `<video>` does not occur exactly once, or `{question}` is missing.
    """

    text: str
    source: str = "text"
    option: str = OPTION
    subtitles: str = _SUBTITLES

    def __post_init__(self) -> None:
        if (found := self.text.count(VIDEO)) != 1:
            raise SfllavaError(
                f"{self.source}: a prompt needs {VIDEO} once, where the video goes; found it {found} times"
            )
        if "{question}" not in self.text:
            raise SfllavaError(f"{self.source}: a prompt needs {{question}}, where the question goes")

    def pieces(self, question: Question) -> tuple[str, str]:
        """Fill in a question, and split the text at the video. Braces or tags in the question stay text.

        Returns:
            The text before the video and the text after it.

        Raises:
            SfllavaError: The question has options and the prompt has no `{options}`.
        """
        if question.options and "{options}" not in self.text:
            raise SfllavaError(f"{self.source}: a prompt for questions with options needs {{options}}")
        values = {
            "{question}": question.text,
            "{options}": options_text(question.options, self.option),
            "{subtitles}": question.subtitles,
        }
        before, _, after = self.text.partition(VIDEO)
        if question.subtitles and "{subtitles}" not in self.text:
            start = "\n" if after.startswith("\n") else ""
            after = start + self.subtitles + after.removeprefix(start)
        return _FIELDS.sub(lambda m: values[m[0]], before), _FIELDS.sub(lambda m: values[m[0]], after)

    def identity(self) -> Any:
        """Return the prompt's entry in run.json: its text, and the formats of options and subtitles unless default."""
        own = {"option": self.option, "subtitles": self.subtitles}
        usual = {"option": OPTION, "subtitles": _SUBTITLES}
        return self.text if own == usual else {"text": self.text} | own


def options_text(options: tuple[str, ...], line: str = OPTION) -> str:
    """Return the options with their letters, one per line: (A) first, (B) second.

    Args:
        options: The options.
        line: The format of a line, with `{label}` for the letter and `{option}`.
    """
    if len(options) > len(LETTERS):
        raise SfllavaError(f"needed at most {len(LETTERS)} options, got {len(options)}")
    lines = (line.replace("{label}", letter).replace("{option}", text) for letter, text in zip(LETTERS, options))
    return "\n".join(lines)


def check_placeholders(text: str, source: str, known: Sequence[str] = PROMPT_FIELDS) -> None:
    """Raise SfllavaError if a text has a placeholder, such as {subtitles}, that is not known."""
    if unknown := [name for name in _PLACEHOLDER.findall(text) if name not in known]:
        listed = ", ".join(f"{{{name}}}" for name in known)
        raise SfllavaError(f"{source}: nothing fills in {{{unknown[0]}}}; the placeholders are {listed}")


def load_prompt(path: str | Path) -> Prompt:
    """Read a prompt from a file, byte for byte.

    Args:
        path: A UTF-8 text file on this machine.

    Returns:
        The prompt.

    Raises:
        SfllavaError: The file cannot be read, or its text is not a prompt.
    """
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


def families() -> list[str]:
    """Return the families of language models that the package has prompts for: the folders in templates/."""
    return sorted(path.name for path in _TEMPLATES.iterdir() if any(path.glob("*.txt")))


def pack_prompt(family: str, task: Task) -> Prompt:
    """Return the package's own prompt for a family of language models and a task.

    Raises:
        SfllavaError: There is no such family, or it has no prompt for the task.
    """
    if family not in families():
        raise SfllavaError(unknown_name("prompt pack", family, families()))
    if (_TEMPLATES / family / f"{task}.txt").is_file():
        return Prompt(_read_template(family, task), f"{family}/{task}")
    if not (_TEMPLATES / family / "video.txt").is_file():
        raise SfllavaError(f"the prompt pack {family} has no {task}.txt or video.txt, which {task} questions need")
    return load_wording(task).prompt(family, f"{family}/{task}")


def load_wording(task: Task) -> Wording:
    """Return the package's own wording of a task."""
    request, _, reply = (_WORDINGS / f"{task}.txt").read_bytes().decode("utf-8").partition(_REPLY)
    return Wording(request, reply, "{option}" if task == "caption_matching" else OPTION)


@cache
def _read_template(family: str, name: str) -> str:
    return (_TEMPLATES / family / f"{name}.txt").read_bytes().decode("utf-8")


def chat_prompt(family: str, system: str) -> Prompt:
    """Return the chat format of a family of language models, with a system text and `{question}` as the user's.

    `<video>` is at the start of the user's turn, so that requests with one system text have a prefix in common.
    """
    return Prompt(_read_template(family, "chat").replace("{system}", system.strip()), f"{family}/chat")
