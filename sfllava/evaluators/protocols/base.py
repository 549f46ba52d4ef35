"""What a file of this package exposes as `PROTOCOL`: how one evaluation tool asks, reads replies and averages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from sfllava.prompts import LETTERS, Wording
from sfllava.types import Question, Task

YES_NO = ("yes", "no")
"""What `Reading.chosen` counts for a yes/no question, which has no options."""
Draw = Callable[[int], int]
"""A number of options -> the index of one of them at random."""


@dataclass(frozen=True)
class Reading:
    """How a protocol reads one reply.

    Attributes:
        correct: Whether the protocol counts the reply as right.
        parsed: Whether the reply names one option by the protocol's rule. A protocol may count a reply that does not as
            wrong or as right, guess for it, or leave it out.
        chosen: The index of the option that the reply names or that was guessed, or the index in `YES_NO`; None if
            there is none. A letter may lie beyond the options.
        counted: Whether the question stays in the denominator.
        guessed: Whether `chosen` is a guess.
    """

    correct: bool
    parsed: bool
    chosen: int | None = None
    counted: bool = True
    guessed: bool = False


Rule = Callable[[Question, str | None, Draw], Reading]
"""(question, reply, random choice) -> how the reply is read. The reply is None for a question that failed."""
WRONG = Reading(False, False)
LEFT_OUT = Reading(False, False, counted=False)


@dataclass(frozen=True)
class Protocol:
    """The prompt, the parser and the mean of one evaluation tool.

    Attributes:
        name: Its name on the command line.
        summary: One sentence on what is special about it.
        rules: How replies are read, by benchmark; "" for all others.
        wordings: The wording of a request, by benchmark, or by benchmark and task as "tempcompass/yes_no". The key
            "videomme/subtitles" is for runs that show subtitles, where their request is another. A benchmark that is
            missing has the package's own wording.
        means: The groups whose means are averaged, by benchmark, such as ("type",). A benchmark that is missing has the
            mean over all questions. None stands for the headline of each benchmark.
        notes: What is special about a benchmark, and what becomes of replies that cannot be read; "" for all others.
    """

    name: str
    summary: str
    rules: Mapping[str, Rule]
    wordings: Mapping[str, Wording] = field(default_factory=dict)
    means: Mapping[str, tuple[str, ...]] | None = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def wording(self, benchmark: str, task: Task, subtitles: bool = False) -> Wording | None:
        """Return the wording of a request; None where the protocol has none of its own.

        Args:
            benchmark: The name of the benchmark.
            task: The task of its questions.
            subtitles: Whether the run shows subtitles.
        """
        keys = [f"{benchmark}/subtitles"] * subtitles + [f"{benchmark}/{task}", benchmark]
        return next((self.wordings[key] for key in keys if key in self.wordings), None)

    def read(self, benchmark: str, question: Question, reply: str | None, draw: Draw) -> Reading:
        """Read a reply.

        Args:
            benchmark: The name of the benchmark.
            question: The question.
            reply: The model's text; None for a question that failed.
            draw: Chooses an option at random, for protocols that guess.
        """
        return (self.rules.get(benchmark) or self.rules[""])(question, reply, draw)

    def note(self, benchmark: str) -> str:
        """Return what must be known about the protocol's numbers on a benchmark."""
        return self.notes.get(benchmark, self.notes.get("", ""))


def right_index(question: Question) -> int | None:
    """Return the index of the right option, the first where several are equal; None if the answer is no option."""
    if question.task == "yes_no":
        answer = question.answer.strip().lower()
        return YES_NO.index(answer) if answer in YES_NO else None
    if question.answer_index is not None:
        return question.answer_index
    return question.options.index(question.answer) if question.answer in question.options else None


def read_index(question: Question, chosen: int | None) -> Reading:
    """Return the reading of a reply that names one option, or none, which is wrong."""
    return WRONG if chosen is None else Reading(chosen == right_index(question), True, chosen)


def read_letter(question: Question, letter: str | None) -> Reading:
    """Return the reading of a reply that names one option by its capital letter, or none, which is wrong."""
    return read_index(question, LETTERS.index(letter) if letter else None)


def read_accepted(question: Question, accepted: Collection[int]) -> Reading:
    """Return the reading of a reply under a rule that only says whether it accepts the right option.

    Args:
        question: The question.
        accepted: The options that the rule would accept if they were right: none, one or several.
    """
    chosen = next(iter(accepted)) if len(accepted) == 1 else None
    return Reading(right_index(question) in accepted, chosen is not None, chosen)


def guess(question: Question, draw: Draw) -> Reading:
    """Return the reading of a reply for which a random option is taken."""
    chosen = draw(len(question.options))
    return Reading(chosen == right_index(question), False, chosen, guessed=True)
