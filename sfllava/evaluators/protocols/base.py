"""What a file of this package exposes as `PROTOCOL`: how one evaluation tool asks, reads replies and averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sfllava.prompts import Wording
from sfllava.types import Question, Task


@dataclass(frozen=True)
class Reading:
    """How a protocol reads one reply.

    Attributes:
        correct: Whether the protocol counts the reply as right.
        parsed: Whether the reply could be read; some protocols guess where it could not.
        chosen: The index of the option that the reply names or that the protocol guessed; None if it names none.
        counted: Whether the question stays in the denominator.
    """

    correct: bool
    parsed: bool
    chosen: int | None = None
    counted: bool = True


@dataclass(frozen=True)
class Protocol:
    """The prompt, the parser and the mean of one evaluation tool.

    Attributes:
        name: Its name on the command line.
        summary: One sentence on what is special about it.
        read: (benchmark, question, reply, random numbers) -> how the reply is read. Only protocols that guess draw
            random numbers.
        wordings: The wording of a request, by benchmark, or by benchmark and task as "tempcompass/yes_no". A benchmark
            that is missing has the package's own wording.
        means: The groups whose means are averaged, by benchmark, such as ("type",). A benchmark that is missing has the
            mean over all questions.
        notes: What the protocol does to replies that it cannot read, by benchmark; "" for all others.
    """

    name: str
    summary: str
    read: Callable[[str, Question, str, np.random.Generator], Reading]
    wordings: Mapping[str, Wording] = field(default_factory=dict)
    means: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def wording(self, benchmark: str, task: Task) -> Wording | None:
        """Return the wording of a request; None where the protocol has none of its own."""
        return self.wordings.get(f"{benchmark}/{task}") or self.wordings.get(benchmark)
