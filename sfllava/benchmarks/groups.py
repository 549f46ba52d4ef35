"""The groups of questions that a benchmark's headline averages: their names, their sizes, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sfllava.benchmarks.spec import Spec
from sfllava.types import Question

_MOST_NAMED = 4  # more groups than these are counted, not named


def group_name(values: Iterable[str], columns: Sequence[str]) -> str:
    """Return the name of a group from its value in each column, such as "yes_no / action"."""
    return " / ".join(value or f"no {column}" for value, column in zip(values, columns))


def group_of(question: Question, spec: Spec, columns: Sequence[str]) -> str:
    """Return the name of a question's group.

    Args:
        question: The question.
        spec: The benchmark, whose names of types count.
        columns: The columns that define a group: "type", or names in `Question.groups`.
    """
    values = {**question.groups, "type": spec.types.get(question.type, question.type)}
    return group_name([values.get(column, "") for column in columns], columns)


def headline_sizes(questions: Iterable[Question], spec: Spec) -> dict[str, int]:
    """Return the number of questions in each group of a benchmark's headline; empty if it has no such groups."""
    if spec.headline is None or "rubric" in spec.headline.groups:
        return {}
    return dict(Counter(group_of(question, spec, spec.headline.groups) for question in questions))


def count_groups(count: int, columns: Sequence[str]) -> str:
    """Return a number of groups in words, such as "7 types" or "15 groups by form and dimension"."""
    if len(columns) > 1:
        return f"{count} group{'s' * (count != 1)} by {' and '.join(columns)}"
    (name,) = columns
    plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return f"{count} {plural if count != 1 else name}"


def describe_missing(asked: Mapping[str, int], complete: Mapping[str, int]) -> str:
    """Say which groups have no questions, or not all of them.

    Args:
        asked: The number of questions asked in each group.
        complete: The number of questions of the whole benchmark in each group; empty if it is not known.

    Returns:
        The text; empty if all groups are complete.
    """
    none = [name for name in complete if not asked.get(name)]
    some = [f"{name} {asked[name]:,} of {n:,}" for name, n in complete.items() if 0 < asked.get(name, 0) < n]
    parts = [f"{what}: {_listed(names)}" for what, names in (("no questions of", none), ("not all of", some)) if names]
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
