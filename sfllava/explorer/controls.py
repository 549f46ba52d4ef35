"""What the controls stand for: a setting, a question, and the choices that the browser offers."""

from __future__ import annotations

from typing import Any

from sfllava.aggregators.matching import budget_methods, match_budget
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import SLOW_POOLS
from sfllava.aggregators.slowfast import SlowFast, named_pathways
from sfllava.explorer.widget import MOST_UPLOADED_BYTES, ExplorerWidget
from sfllava.models.base import VideoLM
from sfllava.plots.canvas import COLOURS
from sfllava.runs.selection_source import SCORE_TEXTS, SelectionSource
from sfllava.sampler import VIDEO_SUFFIXES
from sfllava.sampler.selection.selectors import selectors
from sfllava.settings import SELECTION_FOR, Setting
from sfllava.types import Question

FAST = ("0x0", "1x1", "1x2", "2x2", "2x4", "3x6", "4x4", "4x8", "6x6", "8x8")
BY_NAME = "by name"
MOST_NEW_TOKENS = 4096
_PATHWAYS = ("slowfast", "slow only", "fast only")  # methods that have sliders


def start_values(setting: Setting, question: str, max_new_tokens: int, source: SelectionSource) -> dict[str, Any]:
    """Return what the controls start with."""
    known = named_pathways(setting.aggregation)
    shown = known if known and "{}x{}".format(*known.fast) in FAST else None
    default = shown or SlowFast()
    return {
        "frames": setting.frames, "slow": default.slow_frames, "pool": default.slow,
        "fast": "{}x{}".format(*default.fast), "method": "slowfast" if shown else BY_NAME,
        "aggregation": str(setting.aggregation), "prompt": setting.prompt,
        "selection": setting.frame_selection.name, "rule_options": str(setting.selection).partition(":")[2],
        "selection_for": setting.selection_for, "scorer": source.scorer or "", "scored_text": source.text,
        "frame_list": str(getattr(source.frame_list, "path", source.frame_list) or ""),
        "question": question, "max_new_tokens": max_new_tokens,
    }  # fmt: skip


def limits(model: VideoLM, setting: Setting) -> dict[str, Any]:
    """Return the choices that the browser offers, and the largest numbers of its sliders."""
    known = named_pathways(setting.aggregation)
    rules = {
        name: {
            "usage": found.usage, "list": found.from_list, "scored": found.choose is not None,
            "options": ",".join(f"{option}={value:g}" for option, value in found.options.items()),
        }
        for name, found in selectors().items()
    }  # fmt: skip
    return {
        "frames": max(128, setting.frames), "slow": max(64, known.slow_frames if known else 0),
        "pools": list(SLOW_POOLS), "grids": list(FAST), "methods": [*budget_methods(), BY_NAME],
        "pathways": list(_PATHWAYS), "by_name": BY_NAME, "rules": rules, "selection_for": list(SELECTION_FOR),
        "texts": list(SCORE_TEXTS), "new_tokens": MOST_NEW_TOKENS, "suffixes": ",".join(VIDEO_SUFFIXES),
        "upload_bytes": MOST_UPLOADED_BYTES,
        "model": str(model.info.path).rstrip("/").rsplit("/", 1)[-1], "colours": COLOURS,
    }  # fmt: skip


def setting_of(widget: ExplorerWidget, grid: tuple[int, int], start: Setting) -> Setting:
    """Return the setting that the controls show, without its selection.

    Args:
        widget: the controls.
        grid: rows and columns of patches in a frame.
        start: the setting that the explorer started with: its frame rule and its order of pathways stay.

    Raises:
        SfllavaError: that is impossible.
    """
    more = {"prompt": widget.prompt, "frame_rule": start.frame_rule}
    if widget.method == BY_NAME:
        return Setting(widget.frames, parse_aggregation(widget.aggregation.strip()), **more)
    if widget.method in _PATHWAYS:
        known = named_pathways(start.aggregation)
        rows, columns = map(int, widget.fast.split("x"))
        slow = 0 if widget.method == "fast only" else widget.slow
        fast = (0, 0) if widget.method == "slow only" else (rows, columns)
        order = (known or SlowFast()).order
        return Setting(widget.frames, SlowFast(slow, widget.pool, fast, order=order), **more)
    return Setting(widget.frames, match_budget(widget.method, widget.tokens, widget.frames, *grid), **more)


def question_of(widget: ExplorerWidget) -> Question:
    """Return the question that the controls show."""
    options = tuple(line.strip() for line in widget.answer_options.splitlines() if line.strip())
    return Question(widget.question.strip(), options=options, task="choice" if options else widget.reply)
