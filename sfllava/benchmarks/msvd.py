"""MSVD-QA (Xu et al., 2017): 2 to 60 s of web video, one-word answers."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(
    name="msvd",
    task="open",
    questions=("open_ended_qa/MSVD_QA.csv", "MSVD_Zero_Shot_QA/val_q.json", "MSVD_Zero_Shot_QA/test_q.json"),
    videos=("video_qa/MSVD_Zero_Shot_QA/videos",),
    question_count=6_415,
    video_count=245,
)
