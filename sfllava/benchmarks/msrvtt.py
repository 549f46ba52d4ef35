"""MSRVTT-QA (Xu et al., 2017): 10 to 30 s of web video, one-word answers.

The videos are a copy by the authors of Frozen in Time. Their address is from public download scripts and was not
tested. In the archive, the videos are in MSRVTT/videos/all.
"""

from __future__ import annotations

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos
from sfllava.benchmarks.spec import Spec

SPEC = Spec(
    name="msrvtt",
    task="open",
    questions=("open_ended_qa/MSRVTT_QA.csv", "MSRVTT_Zero_Shot_QA/val_q.json", "MSRVTT_Zero_Shot_QA/test_q.json"),
    videos=("video_qa/MSRVTT_Zero_Shot_QA/videos/all",),
    question_count=12_278,
    video_count=497,
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "open_ended_qa/MSRVTT_QA.csv",
                911_021,
                "cdaa13f4f8c56368bb062bf9648ad7dc550d50abf9c81334253e37d6113891b0",
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="clips of YouTube videos, which belong to their owners; MSR-VTT is for research (unchecked)",
            place="https://github.com/m-bain/frozen-in-time",
            size="several GB (unchecked), 10,000 clips",
            files=(
                RemoteFile(
                    "video_qa/MSRVTT_Zero_Shot_QA/MSRVTT.zip",
                    "https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip",
                    unpack="video_qa/MSRVTT_Zero_Shot_QA/videos/all",
                ),
            ),
        ),
    ),
)
