"""NExT-QA, multiple choice (Xiao et al., 2021): cause, order and description."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(
    name="nextqa",
    task="choice",
    questions=("multiple_choice_qa/NExT_QA.csv", "NExTQA/val_qa.json", "NExTQA/test_qa.json"),
    videos=("multiple_choice_qa/NExTQA/video",),
    question_count=4_996,
    video_count=570,
    types={
        "CW": "why",
        "CH": "how",
        "TN": "before and after",
        "TC": "at the same time",
        "DC": "how many",
        "DL": "where",
        "DO": "other description",
    },
)
