"""What a file of this package exposes as `EVALUATOR`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sfllava.types import Question, Task, Verdict


@dataclass(frozen=True)
class Evaluator:
    """Scores the predictions of one task without a model.

    Attributes:
        task: the task whose predictions it scores.
        grade: (question, prediction) -> the verdict of each of its rules, by name.
        grade_quickly: (reference answer, options, prediction) -> (correct, parsed) by its strict rule, cached, for
            tables of a million rows.
    """

    task: Task
    grade: Callable[[Question, str], dict[str, Verdict]]
    grade_quickly: Callable[[str, Sequence[str], str], tuple[bool, bool]]
