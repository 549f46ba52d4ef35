"""Grounding: which span of a video an answer comes from, predicted from frame scores and scored as in NExT-GQA."""
