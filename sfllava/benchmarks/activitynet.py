"""ActivityNet-QA (Yu et al., 2019): minutes-long videos of activities."""

from __future__ import annotations

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.remote_files import Downloads, Videos
from sfllava.benchmarks.spec import Spec

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
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "open_ended_qa/ActivityNet_QA.csv",
                834_209,
                "aec0e68c6ee7dc8d31c5869b74a6ad8847b1d1b88eccb46fc1af18357603054e",
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="YouTube videos, which belong to their owners; available from the authors on request (unchecked)",
            place="http://activity-net.org/download.html",
            size="size unknown, 800 videos",
        ),
    ),
)
