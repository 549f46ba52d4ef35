"""Scores from the rows of predictions. Every question counts, whether answered, failed or not asked yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sfllava.benchmarks import Benchmark
from sfllava.benchmarks.groups import count_groups, describe_missing, group_of, headline_sizes
from sfllava.evaluators import find_evaluator
from sfllava.evaluators.base import Evaluator
from sfllava.types import Question, SfllavaError, Task


def score_rows(
    questions: Sequence[Question],
    settings: Sequence[str],
    rows: Iterable[dict[str, Any]],
    benchmark: Benchmark | None = None,
) -> dict[str, Any]:
    """Score the predictions of a run by the offline rules of its tasks.

    Args:
        questions: All questions of the run.
        settings: The names of the run's settings.
        rows: The rows of predictions.jsonl.
        benchmark: The benchmark that the questions are from, for its headline.

    Returns:
        For each setting: the counts `questions`, `answered`, `failed` and `not_asked`; `reasons` of the failures with
        their counts, the most common first; and `rules`. For each rule of the tasks' evaluators these have `correct`,
        `unparsable`, and `accuracy` (0 to 1) over all questions of the rule's task. A question that is not answered, or
        whose answer cannot be parsed, is not correct. `empty` counts answers without any text, if there are some; they
        are not among the unparsable ones. Where the questions have several tasks, each rule has the number of its
        `questions`, and `unscored` counts those that only a judge can score. Where the benchmark has a headline and
        every question an evaluator, `headline` has its `name`, its `accuracy` by the strict rules, that of all
        questions `together`, its `groups` in words, and what is `missing` from them. In a run with subtitles,
        `without_subtitles` counts the questions whose subtitles are missing or cannot be read.

    Raises:
        SfllavaError: A row is for a question or setting that is not part of the run.
    """
    by_key = {question.key: question for question in questions}
    tasks: list[Task] = list(dict.fromkeys(question.task for question in questions))
    evaluators: dict[Task, Evaluator | None] = {task: find_evaluator(task) for task in tasks}
    groups = _groups(questions, benchmark)
    tallies = {name: _Tally() for name in settings}
    for row in rows:
        if row["key"] not in by_key or row["setting"] not in tallies:
            raise SfllavaError(f"a row for question {row['key']} at setting {row['setting']}, not part of this run")
        question = by_key[row["key"]]
        tallies[row["setting"]].add(row, question, evaluators[question.task], groups.get(question.key))
    scores = {name: _summary(questions, tally, evaluators) for name, tally in tallies.items()}
    if benchmark and groups and all(evaluators.values()):
        for name, summary in scores.items():
            summary["headline"] = _headline(tallies[name].right, Counter(groups.values()), benchmark)
    return scores


class _Tally:
    """The counts of one setting: answers by rule, reasons of failures, and strictly right answers by group."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def add(self, row: dict[str, Any], question: Question, evaluator: Evaluator | None, group: str | None) -> None:
        """Count the row of a question."""
        if row["error"] or row["prediction"] is None:
            self.counts["failed"] += 1
            self.reasons[row["error"] or "no prediction"] += 1
            return
        self.counts["answered"] += 1
        self.counts["without_subtitles"] += bool(row.get("subtitle_error"))
        empty = not row["prediction"].strip()
        self.counts["empty"] += empty
        if evaluator is None:
            return
        for rule, verdict in evaluator.grade(question, row["prediction"]).items():
            self.counts[f"{rule} correct"] += bool(verdict.correct)
            self.counts[f"{rule} unparsable"] += not verdict.parsed and not empty
        if group is not None:
            self.right[group] += evaluator.grade_quickly(question.answer, question.options, row["prediction"])[0]


def _groups(questions: Sequence[Question], benchmark: Benchmark | None) -> dict[str, str]:
    """Return the group of each question, by its key; empty without a headline."""
    spec = benchmark.spec if benchmark else None
    if spec is None or spec.headline is None:
        return {}
    return {question.key: group_of(question, spec, spec.headline.groups) for question in questions}


def _headline(right: Counter[str], sizes: Mapping[str, int], benchmark: Benchmark) -> dict[str, Any]:
    """Return the mean over groups, of `right` answers and `sizes` by group."""
    headline = benchmark.spec.headline
    assert headline is not None
    return {
        "name": headline.name,
        "accuracy": sum(right[group] / n for group, n in sizes.items()) / len(sizes),
        "together": right.total() / sum(sizes.values()),
        "groups": count_groups(len(sizes), headline.groups),
        "missing": describe_missing(sizes, headline_sizes(benchmark.questions, benchmark.spec)),
    }


def _summary(
    questions: Sequence[Question], tally: _Tally, evaluators: Mapping[Task, Evaluator | None]
) -> dict[str, Any]:
    """Return the scores of one setting."""
    count = tally.counts
    tasks = Counter(question.task for question in questions)
    rules: dict[str, Any] = {}
    for task, evaluator in evaluators.items():
        first = next(question for question in questions if question.task == task)
        for rule in evaluator.grade(first, "") if evaluator else ():
            correct, unparsable = (count[f"{rule} {what}"] for what in ("correct", "unparsable"))
            rules[rule] = {"accuracy": correct / tasks[task], "correct": correct, "unparsable": unparsable}
            if len(tasks) > 1:
                rules[rule]["questions"] = tasks[task]
    unscored = sum(tasks[task] for task, evaluator in evaluators.items() if evaluator is None)
    return {
        "questions": len(questions),
        "answered": count["answered"],
        "failed": count["failed"],
        "not_asked": len(questions) - count["answered"] - count["failed"],
        "reasons": dict(tally.reasons.most_common()),
        "rules": rules,
        **({"empty": count["empty"]} if count["empty"] else {}),
        **({"unscored": unscored} if unscored and rules else {}),
        **({"without_subtitles": missing} if (missing := count["without_subtitles"]) else {}),
    }


def format_scores(scores: dict[str, Any]) -> str:
    """Format scores as text: the counts of each setting, a line per rule, the headline, and the common failures."""
    lines = []
    for name, s in scores.items():
        lines.append(
            f"{name}: {s['questions']} questions, {s['answered']} answered, {s['failed']} failed"
            + (f", {s['not_asked']} not asked yet" if s["not_asked"] else "")
        )
        for rule, r in s["rules"].items():
            lines.append(
                f"  {rule:<17} {100 * r['accuracy']:5.1f} % ({r['correct']} of {r.get('questions', s['questions'])} "
                "correct" + (f", {r['unparsable']} unparsable" if r["unparsable"] else "") + ")"
            )
        if not s["rules"]:
            lines.append("  no offline score: these predictions need a judge")
        if s.get("empty"):
            lines.append(f"  {s['empty']} of the answers are empty")
        if s.get("unscored"):
            lines.append(f"  no offline score for {s['unscored']} of the questions: these predictions need a judge")
        if s.get("without_subtitles"):
            lines.append(f"  {s['without_subtitles']} asked without subtitles, which are missing or cannot be read")
        if h := s.get("headline"):
            lines.append(
                f"  {h['name']:<17} {100 * h['accuracy']:5.1f} % (mean over {h['groups']}), all questions together "
                f"{100 * h['together']:.1f} %"
            )
            lines += [f"    {h['missing']}"] if h["missing"] else []
        lines += [f"  failed {count} x: {reason}" for reason, count in list(s["reasons"].items())[:5]]
    return "\n".join(lines)
