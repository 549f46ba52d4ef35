"""MSRVTT-QA (Xu et al., 2017): 10 to 30 s of web video, one-word answers."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(
    name="msrvtt",
    task="open",
    questions=("open_ended_qa/MSRVTT_QA.csv", "MSRVTT_Zero_Shot_QA/val_q.json", "MSRVTT_Zero_Shot_QA/test_q.json"),
    videos=("video_qa/MSRVTT_Zero_Shot_QA/videos/all",),
    question_count=12_278,
    video_count=497,
)
