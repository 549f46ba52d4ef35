"""IntentQA (Li et al., 2023): why people do what they do, on videos of NExT-QA."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(
    name="intentqa",
    task="choice",
    questions=("multiple_choice_qa/IntentQA.csv", "IntentQA/val_qa.json", "IntentQA/test_qa.json"),
    videos=("multiple_choice_qa/IntentQA/video", "multiple_choice_qa/NExTQA/video"),
    question_count=2_044,
    video_count=524,
)
