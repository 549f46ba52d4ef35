"""Frames at equal distances, whatever the question: those of the setting's frame rule."""

from sfllava.sampler.selection.selectors import Selector

SELECTOR = Selector(None, "by the frame rule, whatever the question")
