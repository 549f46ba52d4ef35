"""TGIF-QA, the FrameQA part (Jang et al., 2017). Its question_id is one per video; rows are keyed by position."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(
    name="tgif",
    task="open",
    questions=("open_ended_qa/TGIF_FrameQA.csv", "TGIF_Zero_Shot_QA/val_q.json", "TGIF_Zero_Shot_QA/test_q.json"),
    videos=("video_qa/TGIF_Zero_Shot_QA/mp4",),
    question_count=13_691,
    video_count=7_132,
)
