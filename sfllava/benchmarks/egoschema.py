"""EgoSchema, its 500 public answers (Mangalam et al., 2023): three minutes seen by the wearer."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(
    name="egoschema",
    task="choice",
    questions=("multiple_choice_qa/EgoSchema.csv", "EgoSchema/val_qa.json", "EgoSchema/test_qa.json"),
    videos=("multiple_choice_qa/EgoSchema/video",),
    question_count=500,
    video_count=500,
)
