"""EgoSchema (Mangalam et al., 2023), the 500 questions with public answers: three-minute first-person videos.

The authors' repository has a script for Google Drive, whose files cannot be downloaded by plain HTTP.
"""

from __future__ import annotations

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.remote_files import Downloads, Videos
from sfllava.benchmarks.spec import Spec

SPEC = Spec(
    name="egoschema",
    task="choice",
    questions=("multiple_choice_qa/EgoSchema.csv", "EgoSchema/val_qa.json", "EgoSchema/test_qa.json"),
    videos=("multiple_choice_qa/EgoSchema/video",),
    question_count=500,
    video_count=500,
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "multiple_choice_qa/EgoSchema.csv",
                478_962,
                "4643616240bfc3d7a531bb705eb453d7ffef647e135a96ab7fd4e0bc270e52b9",
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="that of Ego4D, which requires a signed agreement (unchecked)",
            place="https://github.com/egoschema/EgoSchema",
            size="106 GB for all of the more than 5,000 videos (on the Hub: lmms-lab/egoschema)",
        ),
    ),
)
