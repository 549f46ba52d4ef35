"""How a notebook shows a run: its state, and the accuracy of each setting with its interval as a bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfllava.display.html import Html, interval_bar, table
from sfllava.display.objects import card, more, text, without_folders
from sfllava.display.private import private_folders
from sfllava.runs.run_folder import read_run
from sfllava.types import SfllavaError

_MOST_SETTINGS = 40


def run_card(path: Path, scores: Mapping[str, Any]) -> Html:
    """Show a run.

    Args:
        path: The run folder.
        scores: The scores of its settings, as `Run.scores`.

    Returns:
        The card; without intervals where pandas is not installed or only a judge can score the questions.
    """
    found = _intervals(path)
    rows = [_row(name, each, found.get(name)) for name, each in list(scores.items())[:_MOST_SETTINGS]]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    hidden = len(scores) - len(rows)
    notes = [f"and {hidden:,} more settings"] if hidden > 0 else []
    reasons = {reason: None for each in scores.values() for reason in list(each["reasons"])[:3]}
    roots = private_folders(read_run(path)) if reasons else []
    why = more("why questions failed", text(without_folders("\n".join(reasons), roots))) if reasons else ""
    rules = more("by each rule", _by_rule(scores)) if found else ""
    return card("Run", path.name, table(rows, columns), *notes, rules, why, facts=_state(scores))


def _state(scores: Mapping[str, Any]) -> list[str]:
    """Return in words how far a run has come."""
    questions, waiting, failed = (
        sum(each[what] for each in scores.values()) for what in ("questions", "not_asked", "failed")
    )
    settings = f"{len(scores):,} setting{'s' * (len(scores) != 1)}"
    state = f"unfinished: {waiting:,} of {questions:,} answers to come" if waiting else "finished"
    return [state, settings, f"{questions:,} answers", *([f"{failed:,} failed"] if failed else [])]


def _row(name: str, scores: Mapping[str, Any], interval: tuple[float, float, float] | None) -> dict[str, object]:
    """Return the row of a setting: by the strict rule with an interval if there is one, else by each rule."""
    row: dict[str, object] = {"setting": name}
    if interval is not None:
        value, low, high = interval
        ends = f'<span class="nowrap">[{low:.1f}, {high:.1f}]</span>'
        row |= {"accuracy, %": Html(f"{value:.1f}"), "95 %": Html(ends)}
        row[" "] = interval_bar(value, low, high)
    else:
        row |= {f"{rule}, %": round(100 * each["accuracy"], 1) for rule, each in scores["rules"].items()}
    row["questions"] = scores["questions"]
    empty = {"failed": scores["failed"], "not asked": scores["not_asked"]}
    empty["unparsable"] = max((each["unparsable"] for each in scores["rules"].values()), default=0)
    return row | {what: n for what, n in empty.items() if n} | ({} if scores["rules"] else {"score": "needs a judge"})


def _by_rule(scores: Mapping[str, Any]) -> Html:
    """Return the accuracy of each setting by each rule of its tasks."""
    settings = list(scores.items())[:_MOST_SETTINGS]
    return table(
        {"setting": name, "rule": rule, "accuracy, %": round(100 * found["accuracy"], 1), "correct": found["correct"]}
        for name, each in settings
        for rule, found in each["rules"].items()
    )


def _intervals(path: Path) -> dict[str, tuple[float, float, float]]:
    """Return accuracy, low and high of each setting in percent; nothing where they cannot be computed."""
    try:
        from sfllava.analysis.loading import load_results
        from sfllava.analysis.results import accuracy

        found = accuracy(load_results(path)).dropna(subset=["accuracy"])
    except (ImportError, SfllavaError):
        return {}
    return {row["name"]: (row["accuracy"], row["low"], row["high"]) for row in found.to_dict("records")}
