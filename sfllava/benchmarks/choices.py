"""Parse the options of multiple-choice questions: lists, JSON, lines with letters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sfllava.benchmarks.rows import BenchmarkError

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s*(.*)", re.DOTALL)
_FIRST = re.compile(r"\s*\(?A[.):]")


def text_list(value: Any, field: str, where: str) -> list[str]:
    """Return a field that is a list of texts or a JSON string of one.

    Args:
        value: a list, or a JSON string of a list of strings.
        field: the field's name, for error messages.
        where: the file and the row, for error messages.

    Raises:
        BenchmarkError: the value is neither.
    """
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and not all(isinstance(text, str) for text in found):
            found = None
    if not isinstance(found, list) or None in found:
        raise BenchmarkError(f"{where}: {field} must be a list, got {value!r:.200}")
    return [str(text) for text in found]


def strip_letters(options: Sequence[str], where: str) -> list[str]:
    """Return options such as "A. Apples." without their letters.

    Args:
        options: the options; their letters must be A, B, C, ...
        where: the file and the row, for error messages.

    Raises:
        BenchmarkError: an option has the wrong letter or none.
    """
    found = []
    for letter, option in zip(_LETTERS, options):
        match = _LETTERED.fullmatch(option)
        if match is None or match[1] != letter:
            raise BenchmarkError(f"{where}: needed an option that begins with {letter}., got {option!r:.80}")
        found.append(match[2])
    return found


def split_lettered(text: str, where: str) -> tuple[str, list[str]]:
    """Split a text into the question and its options.

    Args:
        text: the question, followed by one line per option; the lines begin with letters from A.
        where: the file and the row, for error messages.

    Returns:
        The question, and the options without letters.

    Raises:
        BenchmarkError: there are no such lines, or their letters are not A, B, C, ...
    """
    lines = text.strip().split("\n")
    first = next((i for i, line in enumerate(lines) if _FIRST.match(line)), 0)
    if first == 0:
        raise BenchmarkError(f"{where}: needed a question with options in lines A., B., ..., got {text!r:.80}")
    return "\n".join(lines[:first]), strip_letters(lines[first:], where)


def without_options(text: str, options: Sequence[str]) -> str:
    """Return a question without its final lines "(A) first", "(B) second", ..., if it has them."""
    lines = "".join(f"\n({letter}) {option}" for letter, option in zip(_LETTERS, options)).rstrip()
    return text.rstrip().removesuffix(lines) if text.rstrip().endswith(lines) else text


def find_letter(answer: str, options: Sequence[str]) -> int | None:
    """Return the index of the option with this letter; None if there is none."""
    letters = list(_LETTERS[: len(options)])
    return letters.index(answer.strip()) if answer.strip() in letters else None


def find_text(answer: str, options: Sequence[str]) -> int | None:
    """Return the index of the first option with this text; None if there is none."""
    return options.index(answer) if answer in options else None
