"""What each file of this package exposes as `PROTOCOL`: the prompts, parser and averages of an evaluation tool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from sfllava.prompts import LETTERS, Wording
from sfllava.types import Question, Task

YES_NO = ("yes", "no")
"""`Reading.chosen` is an index into this for a yes/no question, which has no options."""
Draw = Callable[[int], int]
"""Number of options -> the index of a random one."""


@dataclass(frozen=True)
class Reading:
    """How a protocol parses and grades one reply.

    Attributes:
        correct: Whether the protocol counts the reply as right.
        parsed: Whether the reply names exactly one option under the protocol's rule. If it does not, a protocol may
            count the reply as wrong or as right, pick a random option, or leave the question out.
        chosen: The index of the option that was named or picked at random, or the index in `YES_NO`; None if there is
            none. It may be beyond the last option.
        counted: Whether the question stays in the denominator.
        guessed: Whether `chosen` was picked at random.
    """

    correct: bool
    parsed: bool
    chosen: int | None = None
    counted: bool = True
    guessed: bool = False


Rule = Callable[[Question, str | None, Draw], Reading]
"""(question, reply, function that picks a random option) -> reading. The reply of a failed question is None."""
WRONG = Reading(False, False)
LEFT_OUT = Reading(False, False, counted=False)


@dataclass(frozen=True)
class Protocol:
    """The prompts, the answer parser and the averages of one evaluation tool.

    Attributes:
        name: Its name on the command line.
        summary: One sentence about its characteristics.
        rules: The rules that parse and grade replies, by benchmark; "" for all others.
        wordings: The wording of the prompt, by benchmark, or by benchmark and task, such as "tempcompass/yes_no". The
            key "videomme/subtitles" is for runs with subtitles, if their prompt differs. The package's own wording is
            used for other benchmarks.
        means: The groups whose means are averaged, by benchmark, such as ("type",). Other benchmarks use the mean over
            all questions. If `means` is None, each benchmark uses its headline.
        notes: Peculiarities by benchmark, and how unparsable replies are treated; "" for all others.
    """

    name: str
    summary: str
    rules: Mapping[str, Rule]
    wordings: Mapping[str, Wording] = field(default_factory=dict)
    means: Mapping[str, tuple[str, ...]] | None = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def wording(self, benchmark: str, task: Task, subtitles: bool = False) -> Wording | None:
        """Return the wording of the prompt; None if the protocol does not define one.

        Args:
            benchmark: The name of the benchmark.
            task: The task of its questions.
            subtitles: Whether the prompts have subtitles.
        """
        keys = [f"{benchmark}/subtitles"] * subtitles + [f"{benchmark}/{task}", benchmark]
        return next((self.wordings[key] for key in keys if key in self.wordings), None)

    def read(self, benchmark: str, question: Question, reply: str | None, draw: Draw) -> Reading:
        """Parse and grade a reply.

        Args:
            benchmark: The name of the benchmark.
            question: The question.
            reply: The model's text; None for a failed question.
            draw: Picks a random option, for protocols that need one.
        """
        return (self.rules.get(benchmark) or self.rules[""])(question, reply, draw)

    def note(self, benchmark: str) -> str:
        """Return a note on how to interpret the protocol's numbers on a benchmark."""
        return self.notes.get(benchmark, self.notes.get("", ""))


def right_index(question: Question) -> int | None:
    """Return the index of the right option, the first of equal ones; None if the answer is not among the options."""
    if question.task == "yes_no":
        answer = question.answer.strip().lower()
        return YES_NO.index(answer) if answer in YES_NO else None
    if question.answer_index is not None:
        return question.answer_index
    return question.options.index(question.answer) if question.answer in question.options else None


def read_index(question: Question, chosen: int | None) -> Reading:
    """Return the reading of a reply that names one option; a reply that names none is wrong."""
    return WRONG if chosen is None else Reading(chosen == right_index(question), True, chosen)


def read_letter(question: Question, letter: str | None) -> Reading:
    """Return the reading of a reply that names an option by its capital letter; a reply that names none is wrong."""
    return read_index(question, LETTERS.index(letter) if letter else None)


def read_accepted(question: Question, accepted: Collection[int]) -> Reading:
    """Return the reading of a reply under a rule that only tests whether it accepts the right option.

    Args:
        question: The question.
        accepted: The options that the rule would accept if they were right; may be none, one or several.
    """
    chosen = next(iter(accepted)) if len(accepted) == 1 else None
    return Reading(right_index(question) in accepted, chosen is not None, chosen)


def guess(question: Question, draw: Draw) -> Reading:
    """Return the reading of a reply that is replaced by a random option."""
    chosen = draw(len(question.options))
    return Reading(chosen == right_index(question), False, chosen, guessed=True)
