"""Rubrics: what a judge is told, one file each in rubrics/.

A file begins with its head, which says what the judge is shown and what it replies:

    needs: question, answer, prediction
    reply: correct, score 0 to 5
    --- system ---

`reply` is `correct` (yes or no), `score LOW to HIGH`, or both; or `choice` (the letter of an option, or none). Then
come the system part, a line `--- user ---`, and the user part, in which {name} is replaced by that text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sfllava.catalogue import unknown_name
from sfllava.prompts import check_placeholders
from sfllava.types import SfllavaError

USER = "--- user ---\n"
"""The line between the system part and the user part of a rubric."""
FIELDS = ("question", "question2", "answer", "options", "prediction", "prediction2")
"""The texts that a rubric may need."""
PLACES = re.compile(rf"\{{({'|'.join((*FIELDS, 'fence'))})\}}")
"""Where a rubric's text has another text, or the hash that fences texts off from one another."""
_SYSTEM = "--- system ---\n"
_NUMBER = r"(\d{1,6})"
_SCORE = re.compile(rf"score {_NUMBER} to {_NUMBER}")
_REPLIES = ((["correct"], 0), ([], 1), (["correct"], 1), (["choice"], 0))  # words, and how many scores
_RUBRICS = resources.files("sfllava.evaluators.judges") / "rubrics"


@dataclass(frozen=True)
class Head:
    """What a judge is shown by a rubric, and what it replies.

    Attributes:
        needs: the names of the texts that it is shown, of `FIELDS`.
        decides: it says whether the prediction is correct, yes or no.
        scale: the lowest and the highest score that it may give; None if it gives none.
        chooses: it names the option that the prediction fits.
    """

    needs: tuple[str, ...]
    decides: bool = False
    scale: tuple[float, float] | None = None
    chooses: bool = False


@dataclass(frozen=True)
class Rubric:
    """The prompt template of a judge.

    Attributes:
        name: the name of its file.
        text: the system part, a line `--- user ---`, and the user part.
        head: what the judge is shown, and what it replies.
        source: where the text came from, for error messages.
    """

    name: str
    text: str
    head: Head
    source: str = "text"

    def __post_init__(self) -> None:
        if self.text.count(USER) != 1:
            raise SfllavaError(f"{self.source}: a rubric needs the line {USER.strip()!r} once")
        known = {"question", "answer", "prediction", "fence", *self.head.needs}
        check_placeholders(self.text, self.source, sorted(known))
        if missing := sorted(set(self.head.needs) - set(PLACES.findall(self.text))):
            raise SfllavaError(f"{self.source}: a rubric {self.name} needs {', '.join(f'{{{m}}}' for m in missing)}")

    @property
    def pair(self) -> bool:
        """Whether two questions and two predictions are judged together."""
        return "prediction2" in self.head.needs

    @property
    def gives_correct(self) -> bool:
        """Whether a verdict says if the prediction is correct: by a yes or no, or by the option that was chosen."""
        return self.head.decides or self.head.chooses


def rubric_names() -> list[str]:
    """Return the names of all rubrics: those of the files in rubrics/."""
    return sorted(file.name.removesuffix(".txt") for file in _RUBRICS.iterdir() if file.name.endswith(".txt"))


@cache
def load_rubric(name: str, folder: str | Path | None = None) -> Rubric:
    """Load a rubric by name.

    Args:
        name: one of `rubric_names`.
        folder: a folder with your own wording of it, NAME.txt, without a head or with the rubric's own. Default: the
            package's wording.

    Raises:
        SfllavaError: There is no such rubric, or its text lacks a required part.
    """
    if name not in rubric_names():
        raise SfllavaError(unknown_name("rubric", name, rubric_names()))
    file = _RUBRICS / f"{name}.txt"
    head, text = _split(_read(file), str(file))
    if head is None:
        raise SfllavaError(f"{file}: a rubric needs a head that ends with the line {_SYSTEM.strip()!r}")
    if folder is None:
        return Rubric(name, text, head, str(file))
    own = Path(folder) / f"{name}.txt"
    own_head, text = _split(_read(own), str(own))
    if own_head not in (None, head):
        raise SfllavaError(f"{own}: the head of the rubric {name} cannot be changed: needed {head}, got {own_head}")
    return Rubric(name, text, head, str(own))


def _read(file: Traversable | Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SfllavaError(f"{file}: cannot read the rubric: {error}") from error


def _split(text: str, source: str) -> tuple[Head | None, str]:
    """Return the head of a rubric's file, None if it has none, and the text after it."""
    if _SYSTEM not in text:
        return None, text
    head, _, rest = text.partition(_SYSTEM)
    lines = {name: value for name, _, value in (line.partition(":") for line in head.strip().splitlines())}
    if lines.keys() != {"needs", "reply"}:
        raise SfllavaError(f"{source}: a rubric's head has the lines 'needs' and 'reply', got {', '.join(lines)}")
    needs, reply = ([part.strip() for part in lines[name].split(",")] for name in ("needs", "reply"))
    if unknown := [name for name in needs if name not in FIELDS]:
        raise SfllavaError(f"{source}: needs must name some of {', '.join(FIELDS)}, got {unknown[0]!r}")
    scales = [(float(match[1]), float(match[2])) for part in reply if (match := _SCORE.fullmatch(part))]
    words = [part for part in reply if not _SCORE.fullmatch(part)]
    if (words, len(scales)) not in _REPLIES or any(low >= high for low, high in scales):
        raise SfllavaError(
            f"{source}: reply must be 'correct', 'score LOW to HIGH', both, or 'choice', got {lines['reply'].strip()!r}"
        )
    return Head(tuple(needs), "correct" in words, scales[0] if scales else None, "choice" in words), rest
