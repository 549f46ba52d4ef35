"""ActivityNet-QA (Yu et al., 2019): minutes-long videos of activities."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(
    name="activitynet",
    task="open",
    questions=(
        "open_ended_qa/ActivityNet_QA.csv",
        "Activitynet_Zero_Shot_QA/val_q.json",
        "Activitynet_Zero_Shot_QA/test_q.json",
    ),
    videos=("video_qa/Activitynet_Zero_Shot_QA/all_test",),
    question_count=8_000,
    video_count=800,
    types={
        "0": "motion",
        "1": "spatial",
        "2": "temporal",
        "3": "yes or no",
        "4": "colour",
        "5": "object",
        "6": "location",
        "7": "number",
        "8": "other",
    },
)
