"""Question-aware frames: from the scores of candidate frames to the frames that are encoded. One file per rule.

selectors.py: what a rule exposes as `SELECTOR`, and `parse_selection`, from a name such as `bolt:power=2.5` to a rule.
frame_list.py: a user's own list, or a published one, of the frames of each question.
"""
