"""What the explorer's controls show, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sfllava.runs.selection_source import SelectionSource
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError


@dataclass(frozen=True)
class Request:
    """What the controls showed when a button was clicked."""

    video: str
    setting: Setting
    question: Question
    max_new_tokens: int
    source: SelectionSource


def state_of(explorer: Any) -> dict[str, Any]:
    """Return video, setting, question, budget, chosen frames and progress of an `Explorer`, as plain values."""
    question, widget, chosen = explorer.question, explorer.widget, explorer.strip.chosen
    found: dict[str, Any] = {"video": explorer.video, "question": question.text, "options": list(question.options)}
    found["max_new_tokens"] = widget.max_new_tokens
    try:
        setting, budget = explorer.setting, explorer.budget()
        found |= {"frames": setting.frames, "aggregation": str(setting.aggregation), "prompt": setting.prompt}
        found |= {"frame_rule": setting.frame_rule, "selection": str(setting.selection)}
        found |= {"selection_for": setting.selection_for}
        found |= {"budget": {**asdict(budget), "rest": budget.rest, "over": budget.over}}
    except SfllavaError as error:
        found["problem"] = str(error)
    found |= {"chosen": chosen.selected if chosen else {}, "compared": [s.name for s in explorer.compared]}
    found |= {"view": widget.view, "word": widget.word, "busy": explorer.busy}
    return found | {"error": "" if explorer.error is None else str(explorer.error)}
