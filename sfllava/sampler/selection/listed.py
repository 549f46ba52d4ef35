"""The frames that a list names for each question: a user's own, or a published one (`frame_list.py` reads it)."""

from sfllava.sampler.selection.selectors import Selector

SELECTOR = Selector(None, "those that --frame-list names for the question", from_list=True)
