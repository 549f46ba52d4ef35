"""Frames that are chosen for each question: what the controls say about them."""

from __future__ import annotations

from dataclasses import replace

from sfllava.explorer.widget import ExplorerWidget
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.selection.selectors import FrameSelection
from sfllava.settings import Setting
from sfllava.types import SfllavaError


def source_of(widget: ExplorerWidget, start: SelectionSource) -> SelectionSource:
    """Return what frames are chosen with, according to the controls."""
    names = {"scorer": widget.scorer.strip() or None, "frame_list": widget.frame_list.strip() or None}
    return replace(start, text=widget.scored_text, **names)


def with_selection(setting: Setting, widget: ExplorerWidget, source: SelectionSource) -> Setting:
    """Return a setting with the selection that the controls show.

    Raises:
        SfllavaError: that is impossible, or there is no scorer or list.
    """
    options = widget.rule_options.strip()
    name = f"{widget.selection}:{options}" if options else widget.selection
    chosen = replace(setting, selection=name, selection_for=widget.selection_for)
    selection = chosen.frame_selection
    if selection.needs_scores and chosen.question_aware and not source.scorer:
        raise SfllavaError(
            f"{selection.name} needs a scorer: the folder or hub name of a CLIP or SigLIP, such as "
            "openai/clip-vit-large-patch14"
        )
    if selection.selector.from_list and not source.frame_list:
        raise SfllavaError(f"{selection.name} needs a frame list: a file with the frames of each question")
    return chosen


def describe(selection: FrameSelection, frames: list[int], candidates: int) -> str:
    """Return what was chosen, in one line."""
    of = f" of {candidates:,} candidates" if candidates else ""
    return f"{selection}: {len(set(frames)):,} frames{of} for this question: {selection.selector.usage}"
