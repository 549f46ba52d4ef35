"""Frames that are chosen for each question: what the controls say about them."""

from __future__ import annotations

from dataclasses import replace

from sfllava.explorer.face import Face
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.selection.selectors import FrameSelection
from sfllava.settings import Setting
from sfllava.types import SfllavaError


def source_of(face: Face, start: SelectionSource) -> SelectionSource:
    """Return what frames are chosen with, according to the controls."""
    names = {"scorer": face.scorer.strip() or None, "frame_list": face.frame_list.strip() or None}
    return replace(start, text=face.scored_text, **names)


def with_selection(setting: Setting, face: Face, source: SelectionSource) -> Setting:
    """Return a setting with the selection that the controls show.

    Raises:
        SfllavaError: that is impossible, or there is no scorer or list.
    """
    options = face.rule_options.strip()
    name = f"{face.selection}:{options}" if options else face.selection
    chosen = replace(setting, selection=name, selection_for=face.selection_for)
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
