"""The dataclasses that every part of the package speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sfllava.display.html import Html, table
from sfllava.display.objects import card, more, shares, short, text

Task = Literal["open", "choice", "describe", "yes_no", "caption_matching", "captioning"]


class SfllavaError(Exception):
    """An error that a user can mend; the command line prints it as one line."""


@dataclass(frozen=True)
class Clip:
    """The part of a video that a question is about.

    Attributes:
        start: seconds from the start of the video; None for the start of the video.
        end: seconds from the start of the video; None for the end of the video.
        fps: the frame rate to assume for a folder of frame images; None for a video file.
    """

    start: float | None = None
    end: float | None = None
    fps: float | None = None

    def __str__(self) -> str:
        start, end = (repr(float(bound or 0)).removesuffix(".0") for bound in (self.start, self.end))
        return f"{start} s to {'the end' if self.end is None else f'{end} s'}"


@dataclass(frozen=True)
class Question:
    """One question about one video.

    `key` is unique in a benchmark (its name and the row's position), `id` is what the file calls it and
    may repeat. `answer` is the reference; for a choice question it is `options[answer_index]`. The options of caption
    matching include their labels, such as "Caption A: ...".
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
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Additional groups for breaking down accuracy, such as {"duration": "short"}."""
    clip: Clip | None = None
    """The part of the video that the question is about; None for the whole video."""
    subtitle_file: str = ""
    """The name of the video's subtitle file; empty if there is none."""
    subtitle_start: float = 0.0
    """The time in the subtitles that corresponds to the start of the video, in seconds."""
    subtitles: str = ""
    """The subtitles in the prompt, one per line."""

    def _repr_html_(self) -> str:
        facts = [*filter(None, (self.task, self.type, self.video)), *self.groups.values()]
        options = table([{"option": option} for option in self.options]) if self.options else ""
        reference = more("reference", text(self.answer)) if self.answer else ""
        return card("Question", self.text, options, reference, facts=[*facts, *([self.clip] if self.clip else [])])


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

    def __repr__(self) -> str:
        said = f"error={self.error!r}" if self.error else repr(self.text)
        return f"Answer({said}, question={short(self.question.text)!r}, visual_tokens={self.visual_tokens})"

    def _repr_html_(self) -> str:
        return card("Answer to", short(self.question.text, 200), self.as_html())

    def as_html(self) -> Html:
        """Return the text and, on demand, how it was produced, without the question and without a frame."""
        said = f"no answer: {self.error}" if self.error else self.text or "(empty)"
        counts = f"{self.visual_tokens:,} visual tokens, {self.prompt_tokens:,} tokens in the prompt"
        new = Html(f"{len(self.token_ids):,} new: <code>{' '.join(map(str, self.token_ids))}</code>")
        letters = shares(self.letters) if self.letters else ""
        return Html(text(said, soft=said != self.text) + letters + more(counts, new))


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
    """On the scale of the rubric, such as 0 to 5, fractions kept; None for a rubric that gives none."""
    reply: str = ""
    model: str = ""
    """The exact name that was asked for."""
    response_model: str = ""
    """The name that the server gave itself."""
    tokens: tuple[int, int] = (0, 0)
    """Of prompts and replies, all tries together."""
    cost: float | None = None
    """US dollars, where the prices are known."""
    tries: int = 1
    error: str | None = None
