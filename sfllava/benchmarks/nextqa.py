"""NExT-QA, multiple choice (Xiao et al., 2021): cause, order and description.

The authors' videos are on Google Drive. The archive here is the copy on the Hub that lmms-eval uses, at a revision
whose file list we read. We did not check that it has all 570 videos: `sfllava check` does.
"""

from __future__ import annotations

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos, hub_url
from sfllava.benchmarks.spec import Spec

VIDEOS_FILE = RemoteFile(
    "multiple_choice_qa/NExTQA/videos.zip",
    hub_url("lmms-lab/NExTQA", "0d019debcbf84a3d91ee608ab9ef9ab2a9e7dec5", "videos.zip"),
    unpack="multiple_choice_qa/NExTQA/video",
)
"""6.49 GB. Its SHA-256 is unknown, but the Hub reports it."""

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
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "multiple_choice_qa/NExT_QA.csv",
                969_187,
                "6571ee2e6413dc01cd407b6400ec85c5c4bf5dc88266cb7d2b3b1c0ced567e8b",
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="Flickr videos (from VidOR and YFCC100M) under Creative Commons licences (unchecked)",
            place="https://huggingface.co/datasets/lmms-lab/NExTQA",
            size="6.5 GB",
            files=(VIDEOS_FILE,),
        ),
    ),
)
