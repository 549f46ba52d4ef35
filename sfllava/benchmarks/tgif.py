"""TGIF-QA, the FrameQA part (Jang et al., 2017). Its question_id is one per video; rows are keyed by position.

The licence and the address are from the TGIF repository, which has URLs of GIFs but no archive.
"""

from __future__ import annotations

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.remote_files import Downloads, Videos
from sfllava.benchmarks.spec import Spec

SPEC = Spec(
    name="tgif",
    task="open",
    questions=("open_ended_qa/TGIF_FrameQA.csv", "TGIF_Zero_Shot_QA/val_q.json", "TGIF_Zero_Shot_QA/test_q.json"),
    videos=("video_qa/TGIF_Zero_Shot_QA/mp4",),
    question_count=13_691,
    video_count=7_132,
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "open_ended_qa/TGIF_FrameQA.csv",
                1_474_941,
                "78a3c0053ec7f76dfa943eb46140e56a05a9b28288582297d919cd7df1f56634",
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="approved non-commercial research",
            place="https://github.com/raingo/TGIF-Release",
            size="URLs of 100,000 GIFs on Tumblr",
        ),
    ),
)
