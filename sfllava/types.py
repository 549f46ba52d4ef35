"""The dataclasses that every part of the package speaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["open", "choice", "describe"]
Aggregation = Callable[[Any], Any]
"""Patch grid (T h w D) -> visual tokens (N D): a `SlowFast`, a `Pool`, or a callable of your own."""
PROMPT_FIELDS = ("question", "options")
# a word in braces; not JSON, nor LaTeX's \boxed{answer}, nor doubled braces
_PLACEHOLDER = re.compile(r"(?<![\w{$])\{([A-Za-z_]\w*)\}(?!\})")


class SfllavaError(Exception):
    """An error that a user can mend; the command line prints it as one line."""


def name_of(aggregation: object) -> str:
    """The name of an aggregation or pool; of a user's own, one that is the same in the next process."""
    name = getattr(aggregation, "__qualname__", None)
    return name.split("<locals>.")[-1] if isinstance(name, str) else re.sub(r" at 0x[0-9a-f]+", "", str(aggregation))


def key_of(value: object) -> object:
    """A key that tells an aggregation or pool from others: its value, or the object itself where it has no hash."""
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return type(value), value


class _Itself:
    # holds the object: the id of one that is gone may become another's
    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def is_url(path: object) -> bool:
    """Whether a path is the address of something on another machine, such as https://host/clip.mp4."""
    return re.match(r"[a-z][a-z0-9+.-]+:/+[^/]", str(path), re.IGNORECASE) is not None


def check_placeholders(text: str, source: str, known: Sequence[str] = PROMPT_FIELDS) -> None:
    """Raise SfllavaError for a placeholder such as {subtitles} that is not known: nothing would fill it in."""
    if unknown := [name for name in _PLACEHOLDER.findall(text) if name not in known]:
        listed = ", ".join(f"{{{name}}}" for name in known)
        raise SfllavaError(f"{source}: nothing fills in {{{unknown[0]}}}; the placeholders are {listed}")


def check_options(read: str, max_new_tokens: int, questions: Iterable[Question]) -> None:
    """Raise SfllavaError for a way of reading answers that there is not, or that the questions do not allow."""
    if read not in ("generate", "logits"):
        raise SfllavaError(f"read must be generate or logits, got {read!r}")
    if max_new_tokens < 1:
        raise SfllavaError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if read == "logits" and any(not question.options for question in questions):
        raise SfllavaError("reading letters from logits needs questions with options")


@dataclass(frozen=True)
class Question:
    """One question about one video.

    `key` is unique in a benchmark (its name and the row's position), `id` is what the file calls it and
    may repeat. `answer` is the reference; for a choice question it is `options[answer_index]`.
    """

    text: str
    key: str = ""
    video: str = ""
    answer: str = ""
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    id: str = ""
    type: str = ""
    task: Task = "open"


@dataclass(frozen=True)
class Setting:
    """How a video becomes tokens: `frames` sampled frames, then an aggregation (or the name of one).

    A video of fewer frames gives all it has.
    """

    frames: int = 50
    aggregation: Aggregation | str = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
    label: str = ""
    prompt: str = ""
    """Text with <video>, {question} and {options} that takes the place of the prompt, for this setting alone"""

    def __post_init__(self) -> None:
        if isinstance(self.frames, bool) or not isinstance(self.frames, int) or self.frames < 1:
            raise SfllavaError(f"frames must be a whole number of at least 1, got {self.frames!r}")
        if self.prompt:
            check_placeholders(self.prompt, self.label or "prompt")
        if isinstance(self.aggregation, str):
            from sfllava.methods import parse_aggregation  # parsing needs torch; importing types must not

            object.__setattr__(self, "aggregation", parse_aggregation(self.aggregation))

    def images(self, frames: Any) -> Any:
        """Frames (T H W 3) -> what the vision tower is to see of them: themselves, or images tiled of them."""
        compose = getattr(self.aggregation, "compose", None)
        return compose(frames) if compose else frames

    def tokens(self, grid: Any) -> Any:
        """Patch grid (T h w D) -> visual tokens (N D)."""
        assert callable(self.aggregation)
        return self.aggregation(grid)

    def budget(self, h: int = 24, w: int = 24, total: int | None = None) -> int:
        """Visual tokens in frames of h x w patches; of a video of `total` frames, or of any that has enough."""
        from sfllava.slowfast import budget

        assert callable(self.aggregation)
        return budget(self.aggregation, self.frames if total is None else min(self.frames, total), h, w)

    @property
    def name(self) -> str:
        """`label`, or frames and aggregation, as rows and figures call this setting."""
        return self.label or f"{self.frames}frms-{name_of(self.aggregation)}"


@dataclass(frozen=True)
class Answer:
    """What the model said to one question."""

    question: Question
    text: str
    token_ids: tuple[int, ...]
    visual_tokens: int
    prompt_tokens: int
    letters: dict[str, float] = field(default_factory=dict)
    """Choice questions read from logits: the probability of each option's letter."""
    error: str | None = None
    """Why there is none: the model's logits were not finite"""


@dataclass(frozen=True)
class Verdict:
    """How one prediction was judged: `correct`, and whether the reply could be read at all.

    The fields from `score` on are a judge's. A verdict with an `error` is none: its judge failed, and nobody knows.
    """

    correct: bool | None
    """None for a rubric that gives a score alone, and where the judge failed."""
    parsed: bool = True
    chosen: int | None = None
    judge: str = ""
    score: float | None = None
    """0 to 5, fractions kept."""
    reply: str = ""
    model: str = ""
    """The exact name that was asked for."""
    served: str = ""
    """The name that the server gave itself."""
    tokens: tuple[int, int] = (0, 0)
    """Of prompts and replies, all tries together."""
    cost: float | None = None
    """US dollars, where the prices are known."""
    tries: int = 1
    error: str | None = None


Evaluator = Callable[[Question, str], dict[str, Verdict]]
"""(question, prediction) -> the verdict of each of its rules, by name."""
