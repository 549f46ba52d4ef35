"""The scores of a run as text: one table over its settings, and below it what needs to be said of some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfllava.display import text

Intervals = Mapping[str, tuple[float, float, float]]
"""The accuracy of a setting by the strict rules and the ends of its 95 % interval, in percent, by its name."""
_ACCURACY = "accuracy, %"
_REASONS = 5


def format_scores(
    scores: Mapping[str, Any],
    intervals: Intervals | None = None,
    seconds: Mapping[str, float] | None = None,
    width: int | None = None,
) -> str:
    """Format scores as text.

    Args:
        scores: As `score_rows` returns them.
        intervals: `analysis.score_intervals.intervals(scores)`; without them, the table has no intervals.
        seconds: The mean seconds per question of each setting, where known.
        width: The columns that the text may take; default: those of the terminal, at most 120.

    Returns:
        The counts over all settings; a table with a row for each setting; and the headline, what is missing, and the
        most common reasons of failures.
    """
    if not scores:
        return "no settings"
    lines = [_counts(scores)]
    columns = _columns(scores, intervals or {}, seconds or {})
    if len(columns) > 1:
        rows = [list(cells) for cells in zip(*(cells for _, cells in columns))]
        heads = [head for head, _ in columns]
        lines.append(text.table(rows, heads, right=range(1, len(heads)), fold=(0,), width=width))
    if any(head == _ACCURACY for head, _ in columns):
        alike = " and ".join(_alike(scores, intervals or {})) or "the strict rule of each task"
        lines.append(f"[ ] 95 % interval, clustered by video; accuracy by {alike}")
    notes: dict[str, list[str]] = {}
    for name, score in scores.items():
        for note in _notes(score):
            notes.setdefault(note, []).append(name)
    told = [note if len(names) == len(scores) else f"{', '.join(names)}: {note}" for note, names in notes.items()]
    lines += map(text.escape_controls, told)
    return "\n".join(lines)


def _counts(scores: Mapping[str, Any]) -> str:
    """Return the counts in words, over all settings."""
    found = {what: sum(s[what] for s in scores.values()) for what in ("answered", "failed", "not_asked")}
    questions = {s["questions"] for s in scores.values()}
    first = f"{max(questions):,} questions" + (f" at {len(scores)} settings" if len(scores) > 1 else "")
    return f"{first}, {found['answered']:,} answered, {found['failed']:,} failed" + (
        f", {found['not_asked']:,} not asked yet" if found["not_asked"] else ""
    )


def _columns(
    scores: Mapping[str, Any], intervals: Intervals, seconds: Mapping[str, float]
) -> list[tuple[str, list[str]]]:
    """Return the name and the cells of each column; counts that are 0 at all settings have none."""
    settings = list(scores.values())
    columns = [("setting", list(scores))]
    headline = next((s["headline"]["name"] for s in settings if s.get("headline")), None)
    finished = bool(intervals) and not any(score["not_asked"] for score in settings)
    alike = _alike(scores, intervals) if finished else []
    if headline:
        columns.append((f"{headline}, %", [_percent(s.get("headline", {}).get("accuracy")) for s in settings]))
    if finished:
        columns.append((_ACCURACY, [_interval(intervals.get(name)) for name in scores]))
    elif headline:
        columns.append(("all questions, %", [_percent(s.get("headline", {}).get("together")) for s in settings]))
    for rule in [rule for rule in _rules(scores) if rule not in alike]:
        columns.append((f"{rule}, %", [_percent(s["rules"].get(rule, {}).get("accuracy")) for s in settings]))
    counts = {
        "failed": [s["failed"] for s in settings],
        "not asked": [s["not_asked"] for s in settings],
        "empty": [s.get("empty", 0) for s in settings],
        "unparsable": [s.get("unparsable", 0) for s in settings],
    }
    columns += [(name, [f"{n:,}" for n in found]) for name, found in counts.items() if any(found)]
    if seconds:
        columns.append(("s/question", [_per_question(seconds.get(name)) for name in scores]))
    return columns


def _rules(scores: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(rule for score in scores.values() for rule in score["rules"]))


def _alike(scores: Mapping[str, Any], intervals: Intervals) -> list[str]:
    """Return the rules whose accuracy the column with intervals has."""
    return [
        rule for rule in _rules(scores) if all(_is_interval_of(rule, s, intervals.get(n)) for n, s in scores.items())
    ]


def _is_interval_of(rule: str, score: Mapping[str, Any], found: tuple[float, float, float] | None) -> bool:
    own = score["rules"].get(rule)
    return own is not None and found is not None and abs(100 * own["accuracy"] - found[0]) < 1e-9


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _interval(found: tuple[float, float, float] | None) -> str:
    return "–" if found is None else "{:.1f} [{:.1f}, {:.1f}]".format(*found)


def _per_question(value: float | None) -> str:
    """Return seconds with two digits that count."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _notes(score: Mapping[str, Any]) -> list[str]:
    """Return what is said below the table about a setting."""
    notes = []
    if not score["rules"]:
        notes.append("no offline score: these predictions need a judge")
    if score.get("unscored"):
        notes.append(f"no offline score for {score['unscored']} of the questions: these predictions need a judge")
    if score.get("without_subtitles"):
        notes.append(f"{score['without_subtitles']} asked without subtitles, which are missing or cannot be read")
    if found := score.get("headline"):
        notes.append(f"{found['name']}: mean over {found['groups']}")
        notes += [found["missing"]] if found["missing"] else []
    return notes + [f"failed {count} x: {reason}" for reason, count in list(score["reasons"].items())[:_REASONS]]
