"""Scores from the rows of predictions. Every question counts, whether answered, failed or not asked yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from sfllava.evaluators import find_evaluator
from sfllava.types import Question, SfllavaError, Task


def score_rows(
    questions: Sequence[Question], settings: Sequence[str], rows: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Score the predictions of a run by the offline rules of its task.

    Args:
        questions: All questions of the run.
        settings: The names of the run's settings.
        rows: The rows of predictions.jsonl.

    Returns:
        For each setting: the counts `questions`, `answered`, `failed` and `not_asked`; `reasons` of the failures with
        their counts, the most common first; and `rules`. For each rule of the task's evaluator these have `correct`,
        `unparsable`, and `accuracy` (0 to 1) over all questions. A question that is not answered, or whose answer
        cannot be parsed, is not correct.

    Raises:
        SfllavaError: A row is for a question or setting that is not part of the run.
    """
    evaluators = {task: find_evaluator(task) for task in get_args(Task)}
    by_key = {question.key: question for question in questions}
    counts = {name: Counter() for name in settings}
    reasons = {name: Counter() for name in settings}
    for row in rows:
        if row["key"] not in by_key or row["setting"] not in counts:
            raise SfllavaError(f"a row for question {row['key']} at setting {row['setting']}, not part of this run")
        question, name = by_key[row["key"]], row["setting"]
        if row["error"] or row["prediction"] is None:
            counts[name]["failed"] += 1
            reasons[name][row["error"] or "no prediction"] += 1
            continue
        counts[name]["answered"] += 1
        evaluator = evaluators[question.task]
        for rule, verdict in (evaluator.grade(question, row["prediction"]) if evaluator else {}).items():
            counts[name][f"{rule} correct"] += bool(verdict.correct)
            counts[name][f"{rule} unparsable"] += not verdict.parsed
    evaluator = evaluators[questions[0].task]
    rules = list(evaluator.grade(questions[0], "")) if evaluator else []
    return {name: _summary(len(questions), count, reasons[name], rules) for name, count in counts.items()}


def _summary(n: int, count: Counter[str], reasons: Counter[str], rules: Sequence[str]) -> dict[str, Any]:
    """Return the scores of one setting over `n` questions."""
    return {
        "questions": n,
        "answered": count["answered"],
        "failed": count["failed"],
        "not_asked": n - count["answered"] - count["failed"],
        "reasons": dict(reasons.most_common()),
        "rules": {
            rule: {
                "accuracy": count[f"{rule} correct"] / n,
                "correct": count[f"{rule} correct"],
                "unparsable": count[f"{rule} unparsable"],
            }
            for rule in rules
        },
    }


def format_scores(scores: dict[str, Any]) -> str:
    """Format scores as text: the counts of each setting, then one line per rule and the most common failures."""
    lines = []
    for name, s in scores.items():
        lines.append(
            f"{name}: {s['questions']} questions, {s['answered']} answered, {s['failed']} failed"
            + (f", {s['not_asked']} not asked yet" if s["not_asked"] else "")
        )
        for rule, r in s["rules"].items():
            lines.append(
                f"  {rule:<17} {100 * r['accuracy']:5.1f} % ({r['correct']} of {s['questions']} correct"
                + (f", {r['unparsable']} unparsable" if r["unparsable"] else "")
                + ")"
            )
        if not s["rules"]:
            lines.append("  no offline score: these predictions need a judge")
        lines += [f"  failed {count} x: {reason}" for reason, count in list(s["reasons"].items())[:5]]
    return "\n".join(lines)
