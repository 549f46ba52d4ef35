"""EgoSchema (Mangalam et al., 2023), the 500 questions with public answers: three-minute first-person videos."""

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
