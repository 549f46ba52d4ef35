"""Prompts: text files with `<video>`, `{question}` and `{options}`.

The package's own are in templates/FAMILY/TASK.txt, in the chat format of a family of language models. A new family is a
new folder there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sfllava.files import is_url
from sfllava.types import Question, SfllavaError, Task

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VIDEO = "<video>"
PROMPT_FIELDS = ("question", "options")
_TEMPLATES = Path(__file__).parent / "templates"
_FIELDS = re.compile("|".join(rf"\{{{name}\}}" for name in PROMPT_FIELDS))
# a word in braces; not JSON, nor LaTeX's \boxed{answer}, nor doubled braces
_PLACEHOLDER = re.compile(r"(?<![\w{$])\{([A-Za-z_]\w*)\}(?!\})")


@dataclass(frozen=True)
class Prompt:
    """The text of a prompt, and where it comes from.

    Args:
        text: The prompt, with `<video>` once, `{question}`, and for multiple choice `{options}`.
        source: A file or a name, for error messages.

    Raises:
        SfllavaError: `<video>` does not occur exactly once, or `{question}` is missing.
    """

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
        """Fill in a question, and split the text at the video. Braces or tags in the question stay text.

        Returns:
            The text before the video and the text after it.

        Raises:
            SfllavaError: The question has options and the prompt has no `{options}`.
        """
        if question.options and "{options}" not in self.text:
            raise SfllavaError(f"{self.source}: a prompt for questions with options needs {{options}}")
        values = {"{question}": question.text, "{options}": options_text(question.options)}
        before, _, after = self.text.partition(VIDEO)
        return _FIELDS.sub(lambda m: values[m[0]], before), _FIELDS.sub(lambda m: values[m[0]], after)


def options_text(options: tuple[str, ...]) -> str:
    """Return the options with their letters, one per line: (A) first, (B) second."""
    if len(options) > len(LETTERS):
        raise SfllavaError(f"needed at most {len(LETTERS)} options, got {len(options)}")
    return "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options))


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
        raise SfllavaError(f"no prompt pack is called {family!r}; choose from {', '.join(families())}")
    file = _TEMPLATES / family / f"{task}.txt"
    if not file.is_file():
        raise SfllavaError(f"the prompt pack {family} has no {file.name}, which {task} questions need")
    return Prompt(file.read_bytes().decode("utf-8"), f"{family}/{task}")


def chat_prompt(family: str, system: str) -> Prompt:
    """Return the chat format of a family of language models, with a system text and `{question}` as the user's.

    `<video>` is at the start of the user's turn, so that requests with one system text have a prefix in common.
    """
    file = _TEMPLATES / family / "chat.txt"
    return Prompt(file.read_bytes().decode("utf-8").replace("{system}", system.strip()), f"{family}/chat")
